"""What a call tells of results before they are there: lazy results are checked against it, and it holds for gaps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import parwise.xarray  # noqa: F401 - has .par

from ..support.labelled import assert_alike, counting
from ..support.oracle import assert_same


def words(x):
    return "ab" * int(x.sum() + 1)


def table(chunk=1):
    array = xr.DataArray(np.arange(12.0).reshape(6, 2), {"k": ("x", [0, 1, 0, 1, 2, 2])}, ("x", "y"))
    return array.copy(data=array.chunk(x=chunk).data)


# Strings without a length.


@pytest.mark.parametrize("dtype", [str, np.str_, "U", "S", bytes, np.dtype("U"), np.bytes_])
@pytest.mark.parametrize("chunk", [1, 4, 6])
def test_strings_without_a_length_are_not_cut(dtype, chunk):
    lazy = table(chunk)

    def func(x):
        return words(x).encode() if np.dtype(dtype).kind == "S" else words(x)

    got = lazy.par.map(func, "x", output_dtypes=dtype, output_core_dims=[])
    assert got.chunks == lazy[:, 0].chunks
    want = lazy.compute().par.map(func, "x", output_dtypes=dtype, output_core_dims=[])
    assert want.dtype == np.dtype(f"{np.dtype(dtype).kind}44")
    assert_alike(got.compute(), want)
    assert got[5].compute().item() == want[5].item()


def test_strings_without_a_length_of_blocks_and_groups_are_not_cut():
    lazy = table(4)
    how = {"output_dtypes": str, "vectorized": True, "chunk": 2, "output_core_dims": []}

    def block(x):
        return np.array([words(one) for one in x])

    want = lazy.compute().par.map(words, "x")
    assert_alike(lazy.par.map(block, "x", **how).compute(), want)

    def group(x):
        return xr.DataArray([words(one) for one in x.data], {"k": x.k}, "x")

    got = lazy.par.map_groups(group, "k", output_dtypes=str, output_core_dims=["x"])
    assert_alike(got.compute(), want)
    how = {"output_dtypes": [str, bytes], "output_core_dims": [[], []]}
    low, high = lazy.par.map(lambda x: (words(x), b"x" * int(x[0])), "x", **how)
    assert (low.compute().values.tolist(), high.dtype.kind) == (want.values.tolist(), "S")
    assert high.compute().values.tolist() == [b"x" * k for k in range(0, 12, 2)]


@pytest.mark.parametrize("dtype", [object, np.dtypes.StringDType(), "U50"])
def test_strings_of_other_dtypes(dtype):
    got = table().par.map(words, "x", output_dtypes=dtype, output_core_dims=[])
    assert got.dtype == np.dtype(dtype)
    assert got.compute().values.tolist() == [words(one) for one in table().values]


@pytest.mark.parametrize(("dtype", "text"), [("M8", "no unit"), (np.timedelta64, "no unit"), ("V", "no length")])
def test_dtypes_without_unit_or_length_are_refused(dtype, text):
    with pytest.raises(ValueError, match=text):
        table().par.map(counting, "x", output_dtypes=dtype, output_core_dims=[])
    with pytest.raises(ValueError, match=text):
        table().par.map_groups(counting, "k", output_dtypes=dtype)


# Lazy results that are not what was declared.


BAD_BLOCKS = {
    "shorter": (lambda x: x[::2], ValueError, r"shape \(2, 2\), but .* have shape \(4, 2\)|shape \(1, 2\), but"),
    "narrower": (lambda x: x[:, :1], ValueError, r"shape \([24], 1\), but .* have shape \([24], 2\)"),
    "deeper": (lambda x: x[..., None], ValueError, r"shape \([24], 2, 1\), but .* have shape \([24], 2\)"),
    "dtype": (lambda x: x + 1j, TypeError, "output_dtypes says float64, but func returned results of dtype complex128"),
    "tuple": (lambda x: (x, x), ValueError, r"are for one result, but func returned 2 result\(s\) in a tuple"),
}


@pytest.mark.parametrize("name", BAD_BLOCKS)
def test_blocks_that_are_not_as_declared(name):
    func, kind, text = BAD_BLOCKS[name]
    lazy = table(3).par.map(func, "x", vectorized=True, chunk=4, output_dtypes=float)
    with pytest.raises(kind, match=text):
        lazy.compute()
    if name == "shorter":  # was silently empty
        with pytest.raises(kind, match=text):
            lazy[4:6].compute()


@pytest.mark.parametrize("boundary", [None, "reflect"])
def test_blocks_with_a_halo_that_are_not_as_declared(boundary):
    how = {"vectorized": True, "chunk": 3, "depth": 1, "boundary": boundary, "output_dtypes": float}
    with pytest.raises(ValueError, match=r"shape \(2, 2\), but .* have shape \([45], 2\)|shape \(3, 2\), but"):
        table().par.map(lambda x: x[::2], "x", **how).compute()


BAD_ELEMENTS = {
    "length": (lambda x: np.zeros(3), ValueError, r"shape \(3,\), but .* have shape \(4,\)"),
    "one": (lambda x: np.zeros(1), ValueError, r"shape \(1,\), but .* have shape \(4,\)"),
    "scalar": (lambda x: x.sum(), ValueError, r"shape \(\), but .* have shape \(4,\)"),
    "dtype": (lambda x: np.zeros(4, "c16"), TypeError, "says float64, but func returned results of dtype complex128"),
    "tuple": (lambda x: (x, x), ValueError, r"are for one result, but func returned 2 result\(s\) in a tuple"),
}


@pytest.mark.parametrize("name", BAD_ELEMENTS)
def test_elements_that_are_not_as_declared(name):
    func, kind, text = BAD_ELEMENTS[name]
    how = {"output_dtypes": float, "output_core_dims": ["q"], "output_sizes": {"q": 4}}
    with pytest.raises(kind, match=text):
        table().par.map(func, "x", **how).compute()
    with pytest.raises(kind, match=text):
        table().par.map_windows(func, x=2, **how).compute()


def test_groups_that_are_not_as_declared():
    with pytest.raises(TypeError, match="a DataArray of dtype float64, but it returned one of dtype complex128"):
        table().par.map_groups(lambda x: x + 1j, "k", output_dtypes=float).compute()
    with pytest.raises(ValueError, match="of sizes {'x': 2, 'y': 2}, but it returned one of {'x': 1, 'y': 2}"):
        table().par.map_groups(lambda x: x[:1], "k", output_dtypes=float).compute()


# Calls of which every element failed.


def fails(x):
    raise KeyError("there")


GAPS = {
    "elements": {},
    "two mapped": {"dim": ("x", "z")},
    "blocks": {"vectorized": True},
    "labelled": {"as_xarray": True},
}


@pytest.mark.pairs
@pytest.mark.parametrize("kind", ["array", "dataset"])
@pytest.mark.parametrize("case", GAPS)
def test_what_was_told_holds_without_any_result(case, kind, runner):
    cube = xr.DataArray(np.zeros((3, 4, 5)), {"x": [1, 2, 3]}, ("x", "y", "z"), name="a")
    how = {"dim": "x", "output_core_dims": ["q"], "output_sizes": {"q": 2}, "errors": "ignore", **GAPS[case], **runner}
    obj = cube if kind == "array" else cube.to_dataset()
    with pytest.warns(RuntimeWarning, match="no result"):
        got = obj.par.map(fails, **how)
    got = got if kind == "array" else got.a
    dims = (how["dim"],) if isinstance(how["dim"], str) else how["dim"]
    assert got.dims == (*dims, "q")
    assert (got.sizes["q"], got.isnull().all().item(), got.name) == (2, True, "a")
    assert "x" in got.coords


def test_what_was_told_holds_for_tuples_dtypes_and_known_dimensions():
    cube = xr.DataArray(np.zeros((3, 4, 5)), dims=("x", "y", "z"))
    how = {"errors": "ignore", "output_core_dims": [["q"], ["z"], []], "output_dtypes": ["f4", "M8[s]", object]}
    with pytest.warns(RuntimeWarning, match="4 of 4"):
        low, middle, high = cube.par.map(fails, "y", output_sizes={"q": 2}, **how)
    assert [one.dims for one in (low, middle, high)] == [("y", "q"), ("y", "z"), ("y",)]
    assert [one.dtype for one in (low, middle, high)] == ["f4", "M8[s]", object]
    assert all(one.isnull().all() for one in (low, middle, high))
    with pytest.warns(RuntimeWarning, match="3 of 3"):
        got = cube.par.map_windows(fails, x=2, errors="ignore", output_core_dims=["q"], output_sizes={"q": 7})
    assert got.sizes == {"x": 3, "q": 7}


@pytest.mark.parametrize("dtype", [int, bool, str])
def test_gaps_that_the_dtype_cannot_hold_are_refused_before_any_work(dtype):
    for array in table().compute(), table():
        with pytest.raises(ValueError, match="has no value for a gap"):
            array.par.map(counting, "x", errors="ignore", output_dtypes=dtype, output_core_dims=[])


@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_what_was_told_of_groups_holds_without_any_result(kind, runner):
    array = table().compute().rename("a")
    obj = array if kind == "array" else array.to_dataset()
    how = {"errors": "ignore", "output_core_dims": ["q"], "output_sizes": {"q": 2}, **runner}
    with pytest.warns(RuntimeWarning, match="3 of 3"):
        got = obj.par.map_groups(fails, "k", **how)
    assert got.sizes == {"k": 3, "q": 2}
    assert got.k.to_numpy().tolist() == [0, 1, 2]
    assert (got if kind == "array" else got.a).isnull().all()
    with pytest.warns(RuntimeWarning, match="3 of 3"):
        got = obj.par.map_groups(fails, "k", **{**how, "output_core_dims": ["x", "y"], "output_sizes": None})
    assert got.sizes == {"x": 6, "y": 2}
    with pytest.raises(ValueError, match="pass output_core_dims"), pytest.warns(RuntimeWarning, match="3 of 3"):
        obj.par.map_groups(fails, "k", errors="ignore")


def test_a_variable_without_any_result_has_as_many_as_others():
    dataset = xr.Dataset({"a": (("x", "y"), np.ones((3, 2))), "b": (("x", "y"), np.zeros((3, 2)))})

    def ends(x):
        if not x.any():
            raise KeyError("there")
        return x.min(), x.max()

    with pytest.warns(RuntimeWarning, match="3 of 3"):
        low, high = dataset.par.map(ends, "x", errors="ignore")
    for one in low, high:
        assert one.a.to_numpy().tolist() == [1, 1, 1]
        assert one.b.isnull().all()


def test_gaps_of_labelled_results_have_the_indexes_of_their_elements():
    array = xr.DataArray(np.arange(12.0).reshape(3, 4), {"x": [1, 2, 3], "y": [1, 2, 3, 4]}, ("x", "y"))

    def func(row):
        if row.x == 2:
            raise KeyError("there")
        return row * 2

    for drop in [], ["y"], ["x", "y"]:
        obj = array.drop_indexes(drop)
        with pytest.warns(RuntimeWarning, match="1 of 3"):
            got = obj.par.map(func, "x", as_xarray=True, errors="ignore")
        whole = obj.par.map(lambda row: row * 2, "x", as_xarray=True)
        assert_alike(got, whole.where(whole.x != 2))
        assert set(got.xindexes) == set(whole.xindexes)


CENTURIES = np.array(["2000", "2100", "2200", "2300"], "M8[s]")
LOSSY = [
    (lambda k: "abcdef"[: k + 1], "U3", "text of 4 characters, which would be cut; pass output_dtypes='<U4'"),
    (lambda k: b"abcdef"[: k + 1], "S3", "text of 4 characters, which would be cut; pass output_dtypes='.S4'"),
    (lambda k: b"abcdef"[: k + 1], "U3", "text of 4 characters, which would be cut; pass output_dtypes='<U4'"),
    (lambda k: 10**k, "U3", "text of 4 characters"),
    (lambda k: 10**k, "i1", "1000, which lies beyond its range; pass output_dtypes='int64'"),
    (lambda k: np.uint64(2**63 + k), "i8", "9223372036854775811, which lies beyond its range"),
    (lambda k: CENTURIES[k], "M8[ns]", "2300-01-01T00:00:00, which lies beyond its range; pass .*datetime64.s"),
]


@pytest.mark.parametrize("as_xarray", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("func", "dtype", "words"), LOSSY)
def test_results_that_a_cast_would_change_are_an_error(func, dtype, words, lazy, as_xarray):
    array = xr.DataArray(np.arange(4), dims="x")

    def labelled(k):
        return xr.DataArray(func(int(k))) if as_xarray else func(int(k))

    how = {"output_dtypes": dtype, "output_core_dims": [], "as_xarray": as_xarray}
    with pytest.raises(ValueError, match=words):
        array[3:].chunk(x=2).par.map(labelled, "x", **how).compute() if lazy else array[3:].par.map(
            labelled, "x", **how
        )
    if isinstance(func(0), str | bytes | int):
        got = (array[:3].chunk(x=2) if lazy else array[:3]).par.map(labelled, "x", **how)
        assert_same(got.to_numpy(), np.array([func(k) for k in range(3)]).astype(dtype))


def test_groups_whose_text_would_be_cut_are_an_error():
    array = xr.DataArray(np.arange(4), {"x": [0, 0, 1, 1]}, "x")
    grouper = xr.groupers.UniqueGrouper(labels=[0, 1])
    for obj in array, array.chunk(x=2):
        with pytest.raises(ValueError, match="text of 4 characters, which would be cut; pass output_dtypes='<U4'"):
            obj.par.map_groups(
                lambda x: xr.DataArray("abcd"), obj.groupby(x=grouper), output_dtypes="U3", output_core_dims=[]
            ).compute()
