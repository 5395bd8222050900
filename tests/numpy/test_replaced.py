"""NumPy's own functions replaced by ours in `numpy`, or by anything else: NumPy's results, and no endless recursion."""

from __future__ import annotations

import numpy as np
import pytest

from parwise._numpy import originals

from ..support.scripts import run_script

PATCHES = {
    "ours": """
import parwise
np.apply_along_axis, np.vectorize = parwise.apply_along_axis, parwise.vectorize
""",
    "a wrapper that imports ours late": """
def apply_along_axis(*args, **kwargs):
    import parwise
    return parwise.apply_along_axis(*args, **kwargs)
class vectorize:
    def __init__(self, *args, **kwargs):
        import parwise
        self._own = parwise.vectorize(*args, **kwargs)
    def __call__(self, *args, **kwargs):
        return self._own(*args, **kwargs)
np.apply_along_axis, np.vectorize = apply_along_axis, vectorize
import parwise
""",
    "refused before ours are imported": """
class Refused:
    def __init__(self, *args, **kwargs):
        raise AssertionError("not to be called")
np.apply_along_axis = np.vectorize = Refused
import parwise
""",
    "refused after ours are imported": """
import parwise
parwise.apply_along_axis, parwise.vectorize
class Refused:
    def __init__(self, *args, **kwargs):
        raise AssertionError("not to be called")
np.apply_along_axis = np.vectorize = Refused
""",
}
CALLS = """
import math
def along_axis(apply_along_axis):
    a = np.arange(24.0).reshape(2, 3, 4)
    yield apply_along_axis(sorted, 1, a)
    yield apply_along_axis(np.sum, 0, a)
    yield apply_along_axis(lambda x: [str(x[0]), None], 2, a)  # objects: NumPy's loop puts them together
    yield apply_along_axis(lambda x: x[0] if x[0] < 9 else int(x[0]), -1, a)
    yield apply_along_axis(np.cumsum, 1, np.ma.masked_less(a, 4)).filled(-1)
    yield apply_along_axis(np.sum, 0, np.matrix([[1, 2], [3, 4]]))
    yield apply_along_axis(np.sum, 0, np.arange(5))
    yield apply_along_axis(np.percentile, 0, a, 50)
def vectorized(vectorize):
    a, b = np.arange(12.0).reshape(3, 4), np.arange(4)
    yield vectorize(lambda x, y: x * 2 + y)(a, b)
    yield vectorize(lambda x: str(x), otypes="O")(a)
    yield from vectorize(lambda x: (x, str(x)))(a)
    yield vectorize(np.sort, signature="(n)->(n)")(a)
    yield vectorize(lambda x: np.array([x[0], None]), signature="(n)->(m)")(a)
    yield vectorize(lambda x: int(x) if x > 3 else x, cache=True)(a)
    yield vectorize(math.sqrt)(np.ma.masked_less(a, 4)).filled(-1)
def same(got, want):
    assert type(got) is type(want) and got.dtype == want.dtype and got.shape == want.shape, (got, want)
    assert repr(got.tolist()) == repr(want.tolist()) if want.dtype == object else got.tobytes() == want.tobytes()
    assert got.strides == want.strides
"""
CHECK = """
for options in ({}, {"workers": 1}, {"executor": "threads", "workers": 3}, {"workers": 2}):
    with parwise.options(**options):
        for ours, wanted, function in (
            (along_axis, want_along_axis, parwise.apply_along_axis),
            (vectorized, want_vectorized, parwise.vectorize),
            (along_axis, want_along_axis, np.apply_along_axis),
            (vectorized, want_vectorized, np.vectorize),
        ):
            if getattr(function, "__name__", "") != "Refused":
                for got, want in zip(ours(function), wanted, strict=True):
                    same(got, want)
with parwise.options(workers=2, isolate=True):
    same(parwise.apply_along_axis(sorted, 1, np.arange(24.0).reshape(2, 3, 4)), want_along_axis[0])
    same(parwise.vectorize(np.sort, signature="(n)->(n)")(np.arange(12.0).reshape(3, 4)), want_vectorized[4])
    # Objects of NumPy's own class that were made before reach workers.
    got = parwise.parallel_map(before, [np.arange(3.0)] * 4)
    assert [one.tolist() for one in got] == [[1, 2, 3]] * 4
print("right")
"""


@pytest.mark.parametrize("patch", PATCHES)
def test_functions_of_numpy_are_replaced(patch):
    done = run_script(
        "import warnings\nimport numpy as np\nwarnings.simplefilter('ignore', PendingDeprecationWarning)\n"
        + CALLS
        + "want_along_axis, want_vectorized = [*along_axis(np.apply_along_axis)], [*vectorized(np.vectorize)]\n"
        + "before = np.vectorize(lambda x: x + 1)\n"
        + PATCHES[patch]
        + CHECK,
        "-",
    )
    assert (done.stdout, done.stderr) == ("right\n", "")


def test_functions_of_numpy_that_call_each_other():
    """`nanmedian` and others look `apply_along_axis` up in `numpy`: here and in workers they may."""
    done = run_script(
        """
        import numpy as np
        a = np.where(np.arange(120) % 7 == 3, np.nan, np.arange(120.0)).reshape(4, 5, 6)
        names = "nanmedian nanpercentile nanquantile".split()
        def f(x):
            return [getattr(np, name)(x, *[0.3] * (k > 0), axis=1) for k, name in enumerate(names)]
        want, each = np.asarray(f(a)).tobytes(), np.asarray([f(x) for x in a]).tobytes()
        import parwise
        np.apply_along_axis, np.vectorize = parwise.apply_along_axis, parwise.vectorize
        for options in ({}, {"executor": "threads", "workers": 2}, {"workers": 2}, {"workers": 2, "isolate": True}):
            with parwise.options(**options):
                assert np.asarray(f(a)).tobytes() == want
                assert parwise.parallel_apply(f, a).tobytes() == each
        print("right")
        """,
        "-",
    )
    assert (done.stdout, done.stderr) == ("right\n", "")


def test_originals_are_numpys():
    assert originals.apply_along_axis is np.apply_along_axis
    assert originals.vectorize is np.vectorize
    assert not originals.vectorize.__module__.startswith("parwise")
