"""Array functions that no halo is sure to give the whole array's bits to."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, signal

from .block_functions import BUTTER, KERNEL, LENGTH, PLACE, REACH, RECURSION, SECTIONS, SIZE, WHOLE, Case, weights

WITHOUT_HALO = (
    # A recursion along the rows
    Case(
        RECURSION,
        "uniform_filter, size=5",
        lambda b: ndimage.uniform_filter(b, 5),
        None,
        "its running sum starts anew in each block; a NaN spreads to the end of its column",
        "convolve1d with equal weights is invariant; f4 differs beside an outlier of 1e12",
        dtypes=("f8",),
    ),
    Case(
        RECURSION,
        "uniform_filter1d(axis=0)",
        lambda b: ndimage.uniform_filter1d(b, 5, axis=0),
        None,
        "its running sum starts anew in each block",
        dtypes=("f8",),
    ),
    Case(
        RECURSION,
        "lfilter, pole 0.5",
        lambda b: signal.lfilter([1.0], [1.0, -0.5], b, axis=0),
        None,
        "each row remembers all rows before it",
        "pole 0.9: from about 450 rows; 0.99: not with 1150",
        settled=128,
    ),
    Case(
        RECURSION,
        "sosfilt, Butterworth of order 4",
        lambda b: signal.sosfilt(SECTIONS, b, axis=0),
        None,
        "each row remembers all rows before it",
        settled=400,
    ),
    Case(
        RECURSION,
        "filtfilt, Butterworth of order 3",
        lambda b: signal.filtfilt(*BUTTER, b, axis=0, padlen=min(12, len(b) - 1)),
        None,
        "each row remembers all rows, before and after it",
        settled=600,
    ),
    Case(
        RECURSION,
        "spline_filter, order=3",
        lambda b: ndimage.spline_filter(b, 3),
        None,
        "each row remembers all rows, before and after it",
        "so does shift with order=3",
        settled=64,
    ),
    Case(RECURSION, "cumsum(axis=0)", lambda b: b.cumsum(axis=0), None, "each row needs all rows before it"),
    Case(
        RECURSION,
        "maximum.accumulate(axis=0)",
        lambda b: np.maximum.accumulate(b, axis=0),
        None,
        "each row needs all rows before it",
    ),
    # As far as the data says
    Case(
        REACH,
        "distance_transform_edt",
        lambda b: ndimage.distance_transform_edt(b < 3),
        None,
        "as far as the farthest pixel is from an edge",
        "equal if depth is at least the largest distance",
    ),
    Case(REACH, "label", lambda b: ndimage.label(b > 0.5)[0], None, "numbers count on from the first row"),
    Case(
        REACH,
        "binary_propagation",
        lambda b: ndimage.binary_propagation(b > 2, mask=b > -0.5),
        None,
        "as far as a region reaches",
        "so does binary_fill_holes",
        sure=False,
    ),
    # The whole array
    Case(WHOLE, "b - b.mean()", lambda b: b - b.mean(), None, "of all rows"),
    Case(WHOLE, "b - b.mean(axis=0)", lambda b: b - b.mean(axis=0), None, "of all rows"),
    Case(WHOLE, "b / b.max()", lambda b: b / b.max(), None, "of all rows"),
    Case(WHOLE, "b > median", lambda b: b > np.median(b), None, "of all rows", "99 % of the values are equal"),
    Case(WHOLE, "zscore(axis=0)", lambda b: (b - b.mean(axis=0)) / b.std(axis=0), None, "of all rows"),
    Case(WHOLE, "sort(axis=0)", lambda b: np.sort(b, axis=0), None, "of all rows"),
    Case(WHOLE, "histogram equalisation", lambda b: np.searchsorted(np.sort(b, axis=None), b), None, "of all rows"),
    Case(WHOLE, "np.fft.fft(axis=0)", lambda b: np.fft.fft(b, axis=0), None, "of all rows"),
    Case(WHOLE, "hilbert(axis=0)", lambda b: signal.hilbert(b, axis=0), None, "of all rows"),
    Case(WHOLE, "detrend(axis=0)", lambda b: signal.detrend(b, axis=0), None, "of all rows"),
    Case(WHOLE, "wiener", lambda b: signal.wiener(b, 3), None, "it estimates the noise of all rows"),
    Case(
        WHOLE,
        "gaussian_filter, mode='wrap'",
        lambda b: ndimage.gaussian_filter(b, 2, mode="wrap"),
        None,
        "the ends need each other",
        "with boundary='wrap': 8",
    ),
    # The place in the block
    Case(PLACE, "b * row number", lambda b: b * np.arange(len(b), dtype=b.dtype)[:, None], None, "rows count anew"),
    Case(PLACE, "every other row", lambda b: np.repeat(b[::2], 2, axis=0)[: len(b)], None, "equal if chunk is even"),
    Case(PLACE, "b[::-1]", lambda b: b[::-1], None, "rows move"),
    Case(PLACE, "np.roll(axis=0)", lambda b: np.roll(b, 1, axis=0), None, "the first row needs the last"),
    Case(
        PLACE,
        "shift by 0.3, order=1",
        lambda b: ndimage.shift(b, (0.3, 0), order=1, mode="nearest"),
        None,
        "row - 0.3 is rounded otherwise for another row number",
        "differs by some 1e-14 of the values",
    ),
    Case(
        PLACE, "rotate", lambda b: ndimage.rotate(b, 10, reshape=False, order=1), None, "about the middle of the block"
    ),
    Case(
        PLACE,
        "seeded noise",
        lambda b: b + np.random.default_rng(0).standard_normal(b.shape).astype(b.dtype),
        None,
        "each block draws the same numbers",
    ),
    # A method chosen by size
    Case(
        SIZE,
        "b @ w",
        lambda b: b @ weights(b),
        None,
        "BLAS takes another kernel for another number of rows",
        "one row is gemv and differs most; even multiples of 192 rows differ at times",
        sure=False,
    ),
    Case(SIZE, "b @ v", lambda b: b @ weights(b, 1)[:, 0], None, "BLAS: rows beyond a multiple of four", sure=False),
    Case(SIZE, "detrend(axis=1)", lambda b: signal.detrend(b, axis=1), None, "least squares are BLAS", sure=False),
    Case(
        SIZE,
        "einsum, optimize=True",
        lambda b: np.einsum("ij,jk->ik", b, weights(b), optimize=True),
        None,
        "BLAS takes another kernel for another number of rows",
        sure=False,
    ),
    Case(
        SIZE,
        "fftconvolve",
        lambda b: signal.fftconvolve(b, np.ones((5, 1), b.dtype) / 3, "same"),
        None,
        "a transform of all rows; its length follows the block's",
    ),
    Case(
        SIZE,
        "oaconvolve",
        lambda b: signal.oaconvolve(b, np.ones((5, 1), b.dtype) / 3, "same"),
        None,
        "its steps follow the block's length",
    ),
    Case(
        SIZE,
        "signal.convolve",
        lambda b: signal.convolve(b, KERNEL.astype(b.dtype), "same"),
        None,
        "method='auto' takes fft for large blocks and sums for small ones",
        "so do correlate and wiener with noise",
    ),
    # Another number of rows
    Case(
        LENGTH, "np.diff(axis=0)", lambda b: np.diff(b, axis=0), None, "one row less", "prepend=b[:1] makes it fit: 1"
    ),
    Case(LENGTH, "sum(axis=0)", lambda b: b.sum(axis=0), None, "the rows are gone"),
    Case(LENGTH, "every second row", lambda b: b[::2], None, "half the rows"),
    Case(LENGTH, "zoom by 2", lambda b: ndimage.zoom(b, (2, 1), order=1), None, "twice the rows"),
    Case(LENGTH, "convolve2d, valid", lambda b: signal.convolve2d(b, np.ones((7, 1)), "valid"), None, "six rows less"),
)
