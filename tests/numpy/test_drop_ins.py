"""`apply_along_axis` and `vectorize` against NumPy's own."""

from __future__ import annotations

import inspect
import math
import os
import pickle
import warnings

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parwise

from ..support.drop_ins import MATRICES, WAYS, Sub, assert_as_numpy, check, outcome, seen
from ..support.examples import examples
from ..support.oracle import assert_same

# `vectorize`: functions of scalars.


def kind(x):
    return type(x).__name__


SCALAR = {
    "same": lambda x: x,
    "type": kind,
    "float": lambda x: float(x) / 3,
    "int": lambda x: int(x) // 3,
    "mixed": lambda x: 1 if x < 3 else x / 2,
    "truncated": lambda x: "a" * int(x % 7),
    "float32": lambda x: np.float32(x) / 3,
    "bool": lambda x: x > 2,
    "huge": lambda x: int(x) * 2**70,
    "complex": lambda x: complex(x, -0.0),
    "none": lambda x: None if x > 2 else 1.5,
    "zero-dimensional": lambda x: np.array(x / 2),
    "list": lambda x: [x, [x]],
    "array": lambda x: np.arange(3),
    "tuple": lambda x: (x, str(x)),
    "nan": lambda x: math.nan if x > 2 else 1,
}


INPUTS = {
    "ints": np.arange(6),
    "floats": np.linspace(-1, 7, 6),
    "plane": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "transposed": np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
    "reversed": np.arange(6.0)[::-2],
    "int16": np.arange(5, dtype="i2"),
    "swapped": np.arange(5, dtype=">f8"),
    "list": [1, 2.5, 7],
    "nested": [[1, 2], [3, 4]],
    "one": np.array([4.0]),
    "scalar": 4,
    "empty": np.zeros((0, 3)),
    "objects": np.array([1, 2.5, np.float32(3), 2**65], object),
    "read-only": np.broadcast_to(np.arange(3.0), (2, 3)),
}


OTYPES = [None, "d", "O"]


@pytest.mark.parametrize("otypes", OTYPES)
def test_functions_of_scalars(otypes, way, request):
    # With workers each function gets each input for one of the otypes, and each of the two all otypes: pairs.
    every = request.config.option.every_case or way not in ("processes", "isolated")
    for k, func in enumerate(SCALAR.values()):
        for n, array in enumerate(INPUTS.values()):
            if every or (k + n) % len(OTYPES) == OTYPES.index(otypes):
                check(func, array, otypes=otypes)


@pytest.mark.parametrize("otypes", [None, "O", "d", "OO"])
def test_sequences_for_an_argument_without_axes(otypes, way):
    for func in (lambda x: [1, x], lambda x: (np.arange(3), {x: 1}), lambda x: (np.array(x), [x]), lambda x: {x: 2}):
        if otypes != "OO" or isinstance(func(4), tuple):
            check(func, 4, otypes=otypes)
            check(func, np.array(4.0), otypes=otypes)


@pytest.mark.parametrize("otypes", ["f", "l", "?", "D", "U", "S", [">i4"], ["datetime64[s]"], "i", ["U3"]])
def test_results_are_cast_as_numpy_does(otypes, way):
    for func in ("same", "int", "mixed", "nan", "truncated", "huge", "bool"):
        check(SCALAR[func], np.linspace(0, 6, 5), otypes=otypes)


def test_several_outputs(way):
    a, b = np.arange(6.0).reshape(2, 3), np.array([1, 2, 3])
    check(lambda x, y: (x + y, int(y), str(x)), a, b)
    check(lambda x, y: (x + y, int(y), str(x)), a.T, b[:2], otypes="fOS")
    check(lambda x: (x,), a, otypes="O")


def test_arguments_of_all_kinds(way):
    a, b = np.arange(3.0), np.arange(4)[:, np.newaxis]

    def f(*args, **kwargs):
        return repr((args, list(kwargs.items())))

    for args, kwargs in [
        ((a, b), {}),
        ((a, 2), {}),
        ((2, a), {}),
        ((2.5, a, [7], b), {}),
        ((a,), {"k": b}),
        ((a,), {"k": 3, "m": b, "n": [1]}),
        ((), {"z": a, "b": b}),
        ((), {"z": a, "b": 2}),
        ((a, np.ones((1, 1, 1))), {}),
        ((a, None, "text"), {}),
        ((a, [1, 2]), {}),
        ((a, 1j, b), {}),
    ]:
        check(f, *args, kwargs=kwargs)
        check(f, *args, kwargs=kwargs, otypes="O", cache=True)
    check(f, a, b, kwargs={"k": [1, 2, 3], "m": b}, excluded={1, "k"})
    check(f, [1, 2], a, [3], excluded={0, 2})
    if way != "isolated":
        check(f, [1, 2], excluded={0})


def test_cache_spares_one_call(way, tmp_path):
    def f(x):
        with open(tmp_path / "calls", "a") as file:
            file.write("x")
        return x

    for cache, calls in [(False, 6), (True, 5)]:
        (tmp_path / "calls").unlink(missing_ok=True)
        result = parwise.vectorize(f, cache=cache, verify=False)(np.arange(5))
        assert_same(result, np.arange(5))
        assert len((tmp_path / "calls").read_text()) == calls


def test_first_call_gets_numpys_scalars(way):
    """As in NumPy, the first call, which finds the dtype, gets NumPy's scalars and all others get Python's."""
    check(lambda x: x + x, np.array([100, 1], "i2"))
    check(lambda x: x + x, np.array([1, 100], "f2"))
    check(kind, np.array([1, 100], "f2"))


@examples(60)
@given(st.data())
def test_any_arrays(data):
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)).input_shapes
    dtypes = hnp.scalar_dtypes().filter(lambda d: d.kind in "?biufcUSmM")
    arrays = []
    for shape in shapes:
        array = data.draw(hnp.arrays(data.draw(dtypes), shape))
        arrays.append(array.transpose(data.draw(st.permutations(range(array.ndim)))) if len(set(shape)) < 2 else array)
    with parwise.options(**data.draw(st.sampled_from([WAYS["isolated"], WAYS["threads"], {}]))):
        check(lambda x, y: (repr(x), y), *arrays, otypes=data.draw(st.sampled_from([None, "UO"])))


# `vectorize` with a signature.


SIGNATURES = {
    "(n)->()": (lambda a: a.mean(), MATRICES),
    "(n)->(n)": (lambda a: a - a.mean(), MATRICES.astype("f4")),
    "(m,n)->(n,m)": (lambda a: a.T, MATRICES),
    "(m,n)->(k)": (lambda a: a.ravel()[:2], MATRICES[..., ::-1, ::-1]),
    "(n),(n)->()": (lambda a, b: a @ b, MATRICES, np.arange(3.0)),
    "(n),()->(n),()": (lambda a, b: (a * b, b), MATRICES, np.arange(2)),
    "(),()->()": (lambda a, b: f"{type(a)} {b}", [1.5, 2], [[3], [4]]),
    "(n)->(),()": (lambda a: (a[0], "a" * int(a[0])), MATRICES[0]),
    "(m,n),(n),()->(m)": (lambda a, b, c: a @ b + c, np.ones((2, 3)), MATRICES, 7),
    "(m,m)->()": (lambda a: a, MATRICES),
    "(n)->(k)": (lambda a: a[: 1 + (a[0] > 9)], MATRICES),
    "( n ) -> ( n )": (lambda a: int(a[0]) if a[0] < 9 else a, MATRICES),
}


@pytest.mark.parametrize("otypes", [None, "f", "O", "fd"])
def test_signatures(otypes, way):
    for signature, (func, *arrays) in SIGNATURES.items():
        check(func, *arrays, signature=signature, otypes=otypes)


def test_mixed_results_of_a_signature(way):
    check(lambda a: int(a[0]) if a[0] < 9 else a[0] / 2, MATRICES, signature="(n)->()")
    check(lambda a: a.astype("i2" if a[0] < 9 else "f8"), MATRICES, signature="(n)->(n)")
    check(lambda a: a if a[0] < 30 else a[:2], MATRICES, signature="(n)->(n)")
    check(lambda a: (1, 2) if a[0] < 30 else 1, MATRICES, signature="(n)->(),()")


@pytest.mark.parametrize("otypes", [None, "f", "O", "fd"])
def test_slices_without_values(otypes, way):
    for func, outputs in [(lambda row: row, "(n)"), (lambda row: (row, row.size), "(n),()")]:
        check(func, np.empty((4, 0)), signature=f"(n)->{outputs}", otypes=otypes)


def test_results_have_the_memory_layout_of_the_loop(way):
    matrix = MATRICES[0, 0]
    check(lambda a: a.T, matrix, signature="(m,n)->(n,m)")
    check(lambda a: a.T, matrix, signature="(m,n)->(n,m)", otypes="f")

    def transposed(row):
        return np.outer(row, [1, 2]).T

    assert_as_numpy(parwise.apply_along_axis(transposed, 0, matrix[0]), np.apply_along_axis(transposed, 0, matrix[0]))

    def fortran(k):
        return np.ones((2, 3), order="F" if k % 5 else "C") * k

    for func in [fortran, lambda k: ("a", fortran(k)), lambda k: (fortran(k), 1)]:
        ours, theirs = (one(func, otypes="O")(range(1, 20)) for one in (parwise.vectorize, np.vectorize))
        for one, other in zip(ours, theirs, strict=True):
            assert_as_numpy(one, other)


def test_what_functions_of_arrays_see(way):
    def look(a, b):
        return seen(a) + repr((type(b), b))

    a = np.asfortranarray(np.arange(24, dtype=">i4").reshape(4, 2, 3))
    check(look, a, np.arange(2.0)[:, np.newaxis, np.newaxis], signature="(n,m),()->()")
    check(look, a[:1], np.arange(2.0), signature="(n,m),()->()")


# `apply_along_axis`.


ALONG = {
    "sum": np.sum,
    "sorted": sorted,
    "cumsum": np.cumsum,
    "outer": lambda r: np.multiply.outer(r, r[::-1]),
    "tuple": lambda r: (r[0], r[-1]),
    "mixed": lambda r: int(r[0]) if r[0] < 5 else r[0] / 2,
    "text": lambda r: "a" * int(r[0]),
    "float16": lambda r: r.astype("f2"),
    "swapped": lambda r: r.astype(">f8"),
    "zero-dimensional": lambda r: np.array(r[0]),
    "ragged": lambda r: r[: 1 + int(r[0]) % 2],
    "seen": seen,
    "subclass": lambda r: r.view(Sub),
    "masked": lambda r: np.ma.masked_less(r, 3),
    "matrix": lambda r: np.asmatrix(r),
    "record": lambda r: np.array((r[0], 1), "f8,i2"),
    "length": len,
}


CUBES = {
    "cube": np.arange(24.0).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
    "strided": np.arange(48.0).reshape(4, 12)[::-2, ::3],
    "row": np.arange(3.0),
    "list": [[1, 2], [3, 4.5]],
    "empty rows": np.zeros((2, 0)),
    "no rows": np.zeros((0, 2)),
    "scalar": 3.0,
}


@pytest.mark.parametrize("func", ALONG.values(), ids=ALONG)
def test_slices(func, way):
    cases = [(a, axis) for a in CUBES.values() for axis in range(-np.ndim(a) - 1, np.ndim(a) + 1)]
    for array, axis in cases:
        ours = outcome(lambda a=array, k=axis: parwise.apply_along_axis(func, k, a))
        theirs = outcome(lambda a=array, k=axis: np.apply_along_axis(func, k, a))
        if isinstance(theirs, np.ma.MaskedArray):
            assert isinstance(ours, np.ma.MaskedArray)
            assert_same(np.ma.getmaskarray(ours), np.ma.getmaskarray(theirs))
            assert_same(ours.filled(0), theirs.filled(0))
        else:
            assert_as_numpy(ours, theirs)


def test_arguments_of_every_call(way):
    a = np.arange(12.0).reshape(3, 4)

    def f(row, k, workers, out=None):
        return row * k + workers

    ours = parwise.apply_along_axis(f, 1, a, 2, workers=7, out=1)
    assert_as_numpy(ours, np.apply_along_axis(f, 1, a, 2, workers=7, out=1))
    assert_as_numpy(
        parwise.apply_along_axis(func1d=np.sum, axis=0, arr=a), np.apply_along_axis(func1d=np.sum, axis=0, arr=a)
    )


def test_slices_are_copies(way):
    a = np.arange(12.0).reshape(3, 4)
    before = a.copy()
    if way in ("one", "serial"):  # NumPy's own loop
        return

    def f(row):
        row += 1
        return row

    assert_same(parwise.apply_along_axis(f, 0, a), before + 1)
    assert_same(a, before)


def test_memory_maps(way, tmp_path):
    a = np.memmap(tmp_path / "a", dtype="f8", mode="w+", shape=(3, 4))
    a[...] = np.arange(12).reshape(3, 4)

    def f(row):
        return row * 2

    assert_as_numpy(parwise.apply_along_axis(sorted, 0, a), np.apply_along_axis(sorted, 0, a))
    ours, theirs = parwise.apply_along_axis(f, 0, a), np.apply_along_axis(f, 0, a)
    assert type(ours) is type(theirs)
    assert_same(np.asarray(ours), np.asarray(theirs))
    check(lambda x: x / 2, a)
    check(lambda x: x.sum(), a, signature="(n)->()")


# Arrays that are left to NumPy; options.


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    "make",
    [np.asmatrix, lambda a: a.view(Sub), lambda a: np.ma.masked_equal(a, 1)],
    ids=["matrix", "subclass", "masked"],
)
def test_other_arrays_are_left_to_numpy(make):
    a = make(np.arange(4.0).reshape(2, 2))
    for ours, theirs in [
        (parwise.vectorize(lambda x: x)(a), np.vectorize(lambda x: x)(a)),
        (parwise.apply_along_axis(lambda r: r * 2, 0, a), np.apply_along_axis(lambda r: r * 2, 0, a)),
    ]:
        assert type(ours) is type(theirs)
        assert repr(ours) == repr(theirs)
    with parwise.options(isolate=True), pytest.raises(TypeError, match=r"type \w+ can only .* isolate and timeout"):
        parwise.apply_along_axis(np.sum, 0, a)
    for option in ({"errors": "ignore"}, {"timeout": 9.0}):
        with pytest.raises(TypeError, match="NumPy's own loop"):
            parwise.vectorize(abs, **option)(a)


@pytest.mark.parametrize(("count", "remedy"), [(31, "leave them out, or exclude all but 30"), (0, "leave them out")])
def test_other_numbers_of_arguments_are_left_to_numpy(count, remedy):
    def size(*given):
        return len(given)

    rows = [[1, 2]] * count
    excluded = {0} if not count else ()
    check(size, *(rows or [7]), excluded=excluded)
    with pytest.raises(TypeError, match=f"a call with {count} arguments .* isolate and timeout; {remedy}$"):
        parwise.vectorize(size, excluded=excluded, isolate=True)(*(rows or [7]))


def test_workers_take_part(eager):
    def where(x):
        return os.getpid()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", parwise.ReproducibilityWarning)
        with parwise.options(isolate=True, workers=2):
            pids = {
                *parwise.vectorize(where)(np.arange(500.0)).tolist(),
                *parwise.vectorize(where, signature="(n)->()")(np.ones((50, 2))).tolist(),
                *parwise.apply_along_axis(where, 0, np.ones((2, 50))).tolist(),
            }
    assert os.getpid() not in pids


def test_options_of_a_vectorized_function():
    assert_same(parwise.vectorize(abs, workers=2, isolate=True)([-1, 2]), np.array([1, 2]))
    with pytest.raises(TypeError, match="did you mean 'workers'"):
        parwise.vectorize(abs, worker=2)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        parwise.vectorize(workers=0)

    @parwise.vectorize(workers=2, isolate=True, otypes="d")
    def half(x):
        """Half of it."""
        return x / 2, os.getpid()

    assert half.__name__ == "half"
    assert half.__doc__ == "Half of it."
    half.pyfunc = lambda x: os.getpid()
    assert os.getpid() not in half([1, 2, 3])


def test_parameters_are_numpys():
    ours, theirs = inspect.signature(parwise.vectorize), inspect.signature(np.vectorize)
    numpys = [p for p in ours.parameters.values() if p.name not in parwise.Options.__annotations__]
    assert [(p.name, p.default) for p in numpys] == [(p.name, p.default) for p in theirs.parameters.values()]
    ours, theirs = inspect.signature(parwise.apply_along_axis), inspect.signature(np.apply_along_axis)
    assert list(ours.parameters) == list(theirs.parameters)
    assert issubclass(parwise.vectorize, np.vectorize)


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def times(self, x):
        return x * self.factor


def test_a_vectorized_function_is_pickled():
    ours = parwise.vectorize(Scale(3).times, otypes=[float], excluded={1}, workers=1)
    ours(np.arange(3))  # NumPy keeps a ufunc now
    again = pickle.loads(pickle.dumps(ours))
    assert_same(again(np.arange(3)), np.array([0.0, 3.0, 6.0]))
    assert again.excluded == {1}
    inner = parwise.vectorize(lambda x: x + 1)
    with parwise.options(workers=2, isolate=True):  # one within another
        assert_same(parwise.apply_along_axis(inner, 0, np.ones((2, 3))), np.full((2, 3), 2.0))


def test_nested_calls_are_serial():
    def f(row):
        return parwise.vectorize(lambda x: os.getpid())(row) == os.getpid()

    with parwise.options(workers=2, isolate=True):
        assert parwise.apply_along_axis(f, 1, np.ones((3, 4))).all()


@pytest.mark.parametrize("isolate", [False, True])
def test_errors_that_are_ignored(isolate):
    options = {"errors": "ignore", "isolate": isolate, "workers": 2}
    with pytest.warns(RuntimeWarning, match=r"no result for 1 of 3 elements.*: 1\..*ZeroDivisionError"):
        result = parwise.vectorize(lambda x: 1 / x, **options)([1, 0, 2])
    assert_same(result, np.array([1, np.nan, 0.5]))
    with pytest.warns(RuntimeWarning, match=r"element \(0, 0\) along axes \(0, 1\)"):
        result = parwise.vectorize(lambda x: (4 // int(x), "a"), **options)(np.array([[0, 1], [2, 0]], order="F"))
    assert_same(result[0], np.array([[np.nan, 4], [2, np.nan]]))
    assert result[1].tolist() == [[None, "a"], ["a", None]]
    with pytest.warns(RuntimeWarning, match="no result for 3 of 3"):
        result = parwise.vectorize(lambda x: 1 / 0, otypes="dd", **options)([1, 2, 3])
    assert_same(result, (np.full(3, np.nan),) * 2)

    def f(row):
        if row[0] == 1:
            raise KeyError
        return row[:2]

    a = np.arange(6).reshape(2, 3)
    with parwise.options(**options), pytest.warns(RuntimeWarning, match="no result for 1 of 3"):
        result = parwise.apply_along_axis(f, 0, a)
    assert_same(result, np.array([[0, np.nan, 2], [3, np.nan, 5]]))
    with pytest.warns(RuntimeWarning, match="no result for 1 of 2"):
        result = parwise.vectorize(f, signature="(n)->(m)", **options)(a + 1)
    assert_same(result, np.array([[np.nan, np.nan], [4, 5]]))
    with parwise.options(**options), pytest.warns(RuntimeWarning, match="no result for 3 of 3"):
        assert_same(parwise.apply_along_axis(lambda r: r[9], 0, a), np.full(3, np.nan))
    with pytest.warns(RuntimeWarning, match="no result for 2 of 2"):
        result = parwise.vectorize(lambda r: r[9], signature="(n)->(),(m)", **options)(a)
    assert_same(result, (np.full(2, np.nan),) * 2)


def test_an_error_names_its_element(way):
    def f(x):
        if x == 5:
            raise ValueError("five")
        return x

    with pytest.raises(ValueError, match="five") as info:
        parwise.vectorize(f)(np.array([[1, 2], [5, 4]], order="F"))
    if way not in ("one", "serial"):  # NumPy's own loop
        assert info.value.__notes__ == ["in element (1, 0) along axes (0, 1)"]
    with pytest.raises(ValueError, match="five") as info:
        parwise.vectorize(f)(np.arange(9))
    if way not in ("one", "serial"):
        assert info.value.__notes__ == ["in element 5 along axis 0"]


def test_other_numbers_of_outputs(way):
    f = parwise.vectorize(lambda x: (x, x) if x < 2 else (x,))
    if way in ("one", "serial"):
        return
    with pytest.raises(ValueError, match="2 outputs, but its result for element 2 is a tuple of 1"):
        f([0, 1, 2])


@pytest.mark.parametrize("verify", [True, "full"])
def test_verify(verify):
    with parwise.options(verify=verify, workers=2):
        check(lambda x: x / 2, np.arange(6.0).reshape(2, 3))
        check(lambda x: (x, str(x)), np.arange(6.0))
        check(lambda a: a - a.mean(), MATRICES, signature="(n)->(n)")
        assert_as_numpy(parwise.apply_along_axis(sorted, 1, MATRICES), np.apply_along_axis(sorted, 1, MATRICES))
        with pytest.raises(parwise.NotReproducibleError):
            parwise.vectorize(lambda x: os.getpid(), otypes="O")([1, 2, 3])


@pytest.mark.filterwarnings("ignore:no result:RuntimeWarning")
def test_gaps_alone_are_what_otypes_and_signature_tell():
    def fails(*_):
        raise KeyError("there")

    with parwise.options(errors="ignore", workers=2, isolate=True):
        for otype, dtype in {"f4": "f4", "M8[s]": "M8[s]", "i4": "f8", object: object}.items():
            got = parwise.vectorize(fails, otypes=[otype])(np.arange(4))
            assert (got.dtype, got.shape) == (np.dtype(dtype), (4,))
        low, high = parwise.vectorize(fails, otypes=["f4", "c8"])(np.ones((2, 2)))
        assert (low.dtype, high.dtype, high.shape) == ("f4", "c8", (2, 2))
        low, high = parwise.vectorize(fails, signature="(n),(m)->(n,m),()")(np.ones((4, 3)), np.ones(2))
        assert (low.shape, high.shape) == ((4, 3, 2), (4,))
        assert np.isnan(low).all()
