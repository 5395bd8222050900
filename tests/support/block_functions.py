"""Which array functions give the same bits in blocks of rows as on the whole array, and with how many rows of halo.

A block is ``chunk`` rows and up to ``depth`` rows of its neighbours on each side; it is shorter at the two ends of the
array (``boundary=None``), keeps the memory order of the array, and the halo's results are trimmed off.

Measured with NumPy 2.4.6, SciPy 1.17.1 and OpenBLAS 0.3.31 (one thread, a processor with AVX-512) on standard normal
data. A case with a depth was equal byte by byte for that depth and for three rows more, chunks of 1, 2, 7, 13 and 64
rows, images of 97x1, 131x3, 200x40 and 150x257 in C and F order, in views and in copies, in each of its ``dtypes``;
with one row less it differs somewhere. A ``sure`` case without a depth differs for images of 200x40 in chunks of 7
with depths of 0 and 8; those of another number of rows cannot even be trimmed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft, interpolate, ndimage, signal, spatial, special

Array = NDArray[np.generic]

ROWS = "each row alone"
WINDOW = "a window of rows"
RECURSION = "a recursion along the rows"
REACH = "as far as the data says"
WHOLE = "the whole array"
PLACE = "the place in the block"
SIZE = "a method chosen by size"
LENGTH = "another number of rows"


@dataclass(frozen=True)
class Case:
    """One function, and what a cut into blocks does to its bits."""

    group: str
    name: str
    f: Callable[[Array], Array]
    depth: int | None
    """The smallest halo that always gives equal bits; None where no halo is sure to."""
    reason: str
    """Why the depth is that, or why there is none."""
    remark: str = ""
    """Other parameters, and where the statement ends."""
    dtypes: tuple[str, ...] = ("f4", "f8")
    rows: int = 1
    """Equal only if each block, its halo included, has that many rows: ``depth=1`` sees to two for any chunk."""
    boundary: str | None = None
    """The word that gives the bits of ``f`` on the whole array as well as ``boundary=None`` does."""
    settled: int | None = None
    """A depth from which no difference was ever seen, for a recursion that forgets."""
    sure: bool = True
    """True if a case without a depth differs with any processor and library."""


KERNEL = np.random.default_rng(9).standard_normal((5, 3))
_TAPS = signal.firwin(21, 0.3)
_X = np.sort(np.random.default_rng(8).standard_normal(50))
_Y = np.random.default_rng(7).standard_normal(50)
_POINTS = np.random.default_rng(6).standard_normal((30, 300))
BUTTER = signal.butter(3, 0.2)
SECTIONS = signal.butter(4, 0.2, output="sos")


def weights(b: Array, columns: int = 8) -> Array:
    return np.random.default_rng(b.shape[1]).standard_normal((b.shape[1], columns)).astype(b.dtype)


def _systems(b: Array) -> Array:
    return b[:, np.arange(16) % b.shape[1]].reshape(-1, 4, 4) + 5 * np.eye(4, dtype=b.dtype)


def _moving_median(b: Array) -> Array:
    return np.median(sliding_window_view(np.pad(b, ((2, 2), (0, 0)), "edge"), 5, axis=0), axis=-1)


def _canny(b: Array) -> Array:
    smooth = ndimage.gaussian_filter(b, 1)
    return np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))


def _local_variance(b: Array) -> Array:
    w = [0.2, 0.6, 0.2]
    return ndimage.convolve1d(b * b, w, axis=0) - ndimage.convolve1d(b, w, axis=0) ** 2


_ONE_ROW = "the row's order of summing follows strides, and a block of one row of an F-ordered image has lost its own"
_ELEMENT = "each element alone, with the same bits in a SIMD vector and in its remainder"
_LAPACK = "NumPy's loop solves one matrix at a time"

#: Cases with a halo that is always enough.
WITH_HALO = (
    # Each row alone
    Case(ROWS, "np.exp", np.exp, 0, _ELEMENT, "so do expm1, sin, cos, tan, tanh, arctan, cbrt; unaligned and f2 too"),
    Case(ROWS, "np.log", lambda b: np.log(np.abs(b)), 0, _ELEMENT, "so do log2, log10, log1p, sqrt"),
    Case(ROWS, "np.sin of large", lambda b: np.sin(b * np.array(1e6, b.dtype)), 0, _ELEMENT),
    Case(ROWS, "b**1.7", lambda b: np.abs(b) ** 1.7, 0, _ELEMENT),
    Case(ROWS, "np.power(b, c)", lambda b: np.power(np.abs(b), b), 0, _ELEMENT, "operands of one memory order"),
    Case(ROWS, "np.hypot", lambda b: np.hypot(b, b[:, ::-1]), 0, _ELEMENT),
    Case(ROWS, "polynomial", lambda b: 2 * b * b + 3 * b - 1, 0, _ELEMENT),
    Case(ROWS, "complex product", lambda b: (b + 1j * b[:, ::-1]) * (b - 2j), 0, _ELEMENT),
    Case(ROWS, "scipy.special.erf", special.erf, 0, _ELEMENT, "so do expit and gammaln"),
    Case(
        ROWS,
        "np.arctan2(b, b[:, ::-1])",
        lambda b: np.arctan2(b, b[:, ::-1]),
        0,
        "NumPy takes the scalar routine instead of the SIMD one for one row with a negative stride",
        "so does power; with positive strides one row is enough",
        rows=2,
    ),
    Case(ROWS, "cumsum(axis=1)", lambda b: b.cumsum(axis=1), 0, "strictly in order along the row"),
    Case(ROWS, "sort(axis=1)", lambda b: np.sort(b, axis=1), 0, "row by row", "so do argsort and partition"),
    Case(ROWS, "max(axis=1)", lambda b: b.max(axis=1), 0, "exact in any order", "so do min and argmax"),
    Case(ROWS, "median(axis=1)", lambda b: np.median(b, axis=1), 0, "selects", "so does percentile"),
    Case(ROWS, "sum(axis=1)", lambda b: b.sum(axis=1), 0, _ONE_ROW, "C order: from one row on", rows=2),
    Case(ROWS, "mean(axis=1)", lambda b: b.mean(axis=1), 0, _ONE_ROW, "C order: from one row on", rows=2),
    Case(ROWS, "std(axis=1)", lambda b: b.std(axis=1), 0, _ONE_ROW, "so does var", rows=2),
    Case(ROWS, "norm(axis=1)", lambda b: np.linalg.norm(b, axis=1), 0, _ONE_ROW, rows=2),
    Case(ROWS, "softmax(axis=1)", lambda b: special.softmax(b, axis=1), 0, _ONE_ROW, "so does logsumexp", rows=2),
    Case(ROWS, "b / sum(axis=1)", lambda b: b / b.sum(axis=1, keepdims=True), 0, _ONE_ROW, rows=2),
    Case(
        ROWS,
        "einsum('ij,jk->ik')",
        lambda b: np.einsum("ij,jk->ik", b, weights(b)),
        0,
        "NumPy's own loop, not BLAS",
        "with optimize=True it is BLAS, and depends on the number of rows",
    ),
    Case(ROWS, "np.vecdot", lambda b: np.vecdot(b, weights(b, 1)[:, 0]), 0, _ONE_ROW, rows=2),
    Case(
        ROWS,
        "matmul, row by row",
        lambda b: (b[:, None, :] @ weights(b))[:, 0],
        0,
        _ONE_ROW,
        "the invariant way to write b @ w",
        rows=2,
    ),
    Case(ROWS, "solve, stack", lambda b: np.linalg.solve(_systems(b), np.ones((len(b), 4, 1), b.dtype)), 0, _LAPACK),
    Case(ROWS, "inv, stack", lambda b: np.linalg.inv(_systems(b)), 0, _LAPACK, "so do det, svd, eigh"),
    Case(ROWS, "np.fft.fft(axis=1)", lambda b: np.fft.fft(b, axis=1), 0, "row by row", "so does np.fft.rfft"),
    Case(ROWS, "scipy.fft.dct(axis=1)", lambda b: fft.dct(b, axis=1), 0, "SIMD across rows, same bits", "so does fft"),
    Case(ROWS, "hilbert(axis=1)", lambda b: signal.hilbert(b, axis=1), 0, "row by row"),
    Case(ROWS, "lfilter(axis=1)", lambda b: signal.lfilter(*BUTTER, b, axis=1), 0, "the recursion is along the row"),
    Case(ROWS, "np.interp(b, x, y)", lambda b: np.interp(b, _X, _Y), 0, "each element alone"),
    Case(ROWS, "CubicSpline(x, y)(b)", lambda b: interpolate.CubicSpline(_X, _Y)(b), 0, "each element alone"),
    Case(ROWS, "searchsorted(x, b)", lambda b: np.searchsorted(_X, b), 0, "each element alone", "so does digitize"),
    Case(
        ROWS, "cdist", lambda b: spatial.distance.cdist(b, _POINTS[:, : b.shape[1]]), 0, "a loop over pairs, not BLAS"
    ),
    Case(ROWS, "KDTree.query", lambda b: spatial.cKDTree(_POINTS[:, : b.shape[1]]).query(b)[0], 0, "point by point"),
    Case(ROWS, "uniform_filter1d(axis=1)", lambda b: ndimage.uniform_filter1d(b, 5, axis=1), 0, "runs along the row"),
    Case(ROWS, "gaussian_filter1d(axis=1)", lambda b: ndimage.gaussian_filter1d(b, 2, axis=1), 0, "along the row"),
    # A window of rows
    Case(
        WINDOW,
        "gaussian_filter, sigma=2",
        lambda b: ndimage.gaussian_filter(b, 2),
        8,
        "int(truncate * sigma + 0.5), truncate is 4",
        "sigma=0.5: 2; 1: 4; 3.3: 13; any order of derivative",
        boundary="symmetric",
    ),
    Case(
        WINDOW,
        "gaussian_filter, sigma=2, truncate=3",
        lambda b: ndimage.gaussian_filter(b, 2, truncate=3),
        6,
        "int(truncate * sigma + 0.5)",
        boundary="symmetric",
    ),
    Case(
        WINDOW,
        "gaussian_filter, sigma=1, mode='nearest'",
        lambda b: ndimage.gaussian_filter(b, 1, mode="nearest"),
        4,
        "int(truncate * sigma + 0.5)",
        boundary="nearest",
    ),
    Case(
        WINDOW,
        "gaussian_filter, sigma=1, mode='mirror'",
        lambda b: ndimage.gaussian_filter(b, 1, mode="mirror"),
        4,
        "int(truncate * sigma + 0.5)",
        boundary="reflect",
    ),
    Case(
        WINDOW,
        "gaussian_filter1d(axis=0), sigma=2",
        lambda b: ndimage.gaussian_filter1d(b, 2, axis=0),
        8,
        "int(truncate * sigma + 0.5)",
        boundary="symmetric",
    ),
    Case(
        WINDOW,
        "gaussian_laplace, sigma=2",
        lambda b: ndimage.gaussian_laplace(b, 2),
        8,
        "int(truncate * sigma + 0.5)",
        boundary="symmetric",
    ),
    Case(
        WINDOW,
        "gaussian_gradient_magnitude, sigma=2",
        lambda b: ndimage.gaussian_gradient_magnitude(b, 2),
        8,
        "int(truncate * sigma + 0.5)",
        boundary="symmetric",
    ),
    Case(
        WINDOW,
        "median_filter, size=5",
        lambda b: ndimage.median_filter(b, 5),
        2,
        "size // 2",
        "even sizes too: 4: 2",
        boundary="symmetric",
    ),
    Case(WINDOW, "rank_filter, size=5", lambda b: ndimage.rank_filter(b, 3, 5), 2, "size // 2", boundary="symmetric"),
    Case(
        WINDOW,
        "percentile_filter, size=5",
        lambda b: ndimage.percentile_filter(b, 20, 5),
        2,
        "size // 2",
        boundary="symmetric",
    ),
    Case(
        WINDOW, "minimum_filter, size=5", lambda b: ndimage.minimum_filter(b, 5), 2, "size // 2", boundary="symmetric"
    ),
    Case(
        WINDOW, "maximum_filter, size=7", lambda b: ndimage.maximum_filter(b, 7), 3, "size // 2", boundary="symmetric"
    ),
    Case(WINDOW, "sobel(axis=0)", lambda b: ndimage.sobel(b, axis=0), 1, "three rows", boundary="symmetric"),
    Case(
        WINDOW,
        "sobel(axis=1)",
        lambda b: ndimage.sobel(b, axis=1),
        1,
        "it smooths over three rows",
        "mode='constant' with cval=0.75 has no word: its second pass pads the first one's result",
        boundary="symmetric",
    ),
    Case(WINDOW, "prewitt(axis=0)", lambda b: ndimage.prewitt(b, axis=0), 1, "three rows", boundary="symmetric"),
    Case(WINDOW, "laplace", ndimage.laplace, 1, "three rows", boundary="symmetric"),
    Case(
        WINDOW,
        "convolve, 5x3",
        lambda b: ndimage.convolve(b, KERNEL),
        2,
        "len(kernel) // 2",
        "and abs(origin) more",
        boundary="symmetric",
    ),
    Case(WINDOW, "correlate, 5x3", lambda b: ndimage.correlate(b, KERNEL), 2, "len(kernel) // 2", boundary="symmetric"),
    Case(
        WINDOW,
        "correlate1d(axis=0, origin=2), 7",
        lambda b: ndimage.correlate1d(b, _TAPS[:7], axis=0, origin=2),
        5,
        "len(kernel) // 2 + abs(origin)",
        boundary="symmetric",
    ),
    Case(
        WINDOW,
        "uniform_filter of integers, size=5",
        lambda b: ndimage.uniform_filter((b * 100).astype("i4"), 5),
        2,
        "size // 2; its running sum of integers is exact",
        "of floats: never",
        boundary="symmetric",
    ),
    Case(
        WINDOW,
        "generic_filter, size=3",
        lambda b: ndimage.generic_filter(b, np.ptp, 3),
        1,
        "size // 2",
        boundary="symmetric",
    ),
    Case(WINDOW, "grey_erosion, size=5", lambda b: ndimage.grey_erosion(b, 5), 2, "size // 2", "so does grey_dilation"),
    Case(
        WINDOW,
        "grey_opening, size=5",
        lambda b: ndimage.grey_opening(b, 5),
        4,
        "2 * (size // 2): an erosion, then a dilation",
        "so do grey_closing and white_tophat; a word serves mode 'wrap', and for odd sizes 'reflect' and 'mirror'",
        boundary="symmetric",
    ),
    Case(WINDOW, "morphological_gradient", lambda b: ndimage.morphological_gradient(b, 5), 2, "size // 2"),
    Case(
        WINDOW,
        "binary_erosion, iterations=3",
        lambda b: ndimage.binary_erosion(b > -1.5, iterations=3),
        3,
        "iterations * radius",
        "so does binary_dilation",
    ),
    Case(
        WINDOW,
        "binary_closing, iterations=2",
        lambda b: ndimage.binary_closing(b > 1, iterations=2),
        4,
        "2 * iterations * radius",
        "so does binary_opening",
    ),
    Case(WINDOW, "binary_hit_or_miss", lambda b: ndimage.binary_hit_or_miss(b > -0.5), 1, "radius"),
    Case(
        WINDOW,
        "shift by 0.5, order=1",
        lambda b: ndimage.shift(b, (0.5, 0), order=1, mode="nearest"),
        1,
        "ceil(shift); row - 0.5 is exact",
        "by 0.3: never",
    ),
    Case(WINDOW, "shift by 3, order=0", lambda b: ndimage.shift(b, (3, 0), order=0, mode="nearest"), 3, "the shift"),
    Case(WINDOW, "np.gradient(axis=0)", lambda b: np.gradient(b, axis=0), 1, "central differences"),
    Case(
        WINDOW,
        "np.gradient(axis=0, edge_order=2)",
        lambda b: np.gradient(b, axis=0, edge_order=2),
        2,
        "the ends look at three rows",
    ),
    Case(WINDOW, "np.diff, prepended", lambda b: np.diff(b, axis=0, prepend=b[:1]), 1, "one row before"),
    Case(WINDOW, "moving median of 5", _moving_median, 2, "size // 2", "so do mean and std", boundary="nearest"),
    Case(
        WINDOW,
        "lfilter, FIR of 21 taps",
        lambda b: signal.lfilter(_TAPS, 1, b, axis=0),
        21,
        "taps - 1 rows before; one more, as np.convolve swaps its operands if a block is not longer than the taps",
    ),
    Case(
        WINDOW,
        "savgol_filter, 7",
        lambda b: signal.savgol_filter(b, 7, 2, axis=0),
        6,
        "window - 1: its mode 'interp' fits the last window, and refuses shorter blocks",
    ),
    Case(
        WINDOW,
        "savgol_filter, 7, mode='nearest'",
        lambda b: signal.savgol_filter(b, 7, 2, axis=0, mode="nearest"),
        3,
        "window // 2",
        boundary="nearest",
    ),
    Case(
        WINDOW, "medfilt, 3", lambda b: signal.medfilt(b, 3), 1, "size // 2", "SciPy pads by zero", boundary="constant"
    ),
    Case(WINDOW, "medfilt2d, 5", lambda b: signal.medfilt2d(b, 5), 2, "size // 2", boundary="constant"),
    Case(
        WINDOW,
        "convolve2d",
        lambda b: signal.convolve2d(b, KERNEL, "same"),
        2,
        "len(kernel) // 2",
        boundary="constant",
    ),
    Case(
        WINDOW,
        "convolve2d, boundary='symm'",
        lambda b: signal.convolve2d(b, KERNEL, "same", "symm"),
        2,
        "len(kernel) // 2",
        boundary="symmetric",
    ),
    Case(
        WINDOW,
        "signal.convolve, method='direct'",
        lambda b: signal.convolve(b, KERNEL, "same", method="direct"),
        2,
        "len(kernel) // 2",
        "method='auto': never",
    ),
    Case(
        WINDOW,
        "unsharp mask, sigma=1.5",
        lambda b: b + 0.5 * (b - ndimage.gaussian_filter(b, 1.5)),
        6,
        "the largest halo of its parts",
        boundary="symmetric",
    ),
    Case(WINDOW, "local variance", _local_variance, 1, "the largest halo of its parts", boundary="symmetric"),
    Case(WINDOW, "sobel of gaussian, sigma=1", _canny, 5, "4 + 1: halos of a chain add up"),
    Case(
        WINDOW,
        "median of median, size=3",
        lambda b: ndimage.median_filter(ndimage.median_filter(b, 3), 3),
        2,
        "1 + 1: halos of a chain add up",
        boundary="symmetric",
    ),
)
