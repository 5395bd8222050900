"""`resume` goes on with the same call alone: each difference is named, before any work."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import textwrap
import threading
import types

import h5py
import numpy as np
import pytest
import zarr

import parwise
from parwise import ParwiseError, parallel_apply, parallel_imap, parallel_map

from ..conftest import made
from ..support.oracle import assert_same
from .test_resume import A, dataset, memmap, zarr_array


def never(row):
    raise AssertionError("called")


def start(tmp_path, function=np.sort, array=A, shape=A.shape, **how):
    """Make a call with a journal, to its end."""
    return parallel_apply(function, array, out=memmap(tmp_path / "out", shape), resume=tmp_path / "journal", **how)


def function_of(source, name="f", **names):
    """A function as a script defines it, of a module that is the user's own."""
    space = {"np": np, "__name__": "somebodys_script", **names}
    exec(textwrap.dedent(source), space)
    return space[name]


SCALED = "def f(row, by=2): return helper(row) * by + K\ndef helper(row): return row - 1"

WRAPPER = """
    class C:
        def __init__(self, f, by):
            self.__wrapped__, self.by = f, by

        def __call__(self, row):
            return self.__wrapped__(row) * self.by
"""

LARGE = np.zeros((2, 10**6))
LARGE[1, 77] = 1

# For each change: what the first call has, what the second one has, and how the error names the difference.
FUNCTIONS = {
    "code": (function_of(SCALED, K=1), function_of(SCALED.replace("* by", "+ by"), K=1), "the code of the function ch"),
    "default": (function_of(SCALED, K=1), function_of(SCALED.replace("by=2", "by=3"), K=1), "the default of 'by' in t"),
    "helper": (function_of(SCALED, K=1), function_of(SCALED.replace("- 1", "- 2"), K=1), "the code of helper, which"),
    "global": (function_of(SCALED, K=1), function_of(SCALED, K=2), "the global variable 'K' changed"),
    "closure": (
        *(function_of("def make(a):\n  return lambda row: row + a", "make")(a) for a in (np.ones(3), np.zeros(3))),
        "the closure variable 'a' of the function changed",
    ),
    "large closure": (
        *(function_of("def make(a):\n  return lambda row: row + a[0]", "make")(a) for a in LARGE),
        "the closure variable 'a' of the function changed",
    ),
    "method": (
        *(function_of(f"class C:\n  def __call__(self, row): return row * {k}", "C")() for k in (1, 2)),
        "the function changed",
    ),
    "object": (
        *(types.MethodType(lambda self, row: row * self[0], [k]) for k in (1, 2)),
        "the object whose method is the function changed",
    ),
    "partial": (functools.partial(np.add, 1.0), functools.partial(np.add, 2.0), "what functools.partial gives to the"),
    "wrapper": (
        *(function_of(WRAPPER, "C")(function_of("def f(row): return row + 1"), by) for by in (1, 2)),
        "by of what calls the function changed",
    ),
    "ufunc": (np.sqrt, np.square, "the function sqrt of numpy .* then, square of numpy .* now"),
    "constants in a set": (
        function_of("def f(row): return row * (1 in {1, 2})"),
        function_of("def f(row): return row * (1 in {1, 3})"),
        "the code of the function changed",
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_function(tmp_path, name):
    first, second, text = FUNCTIONS[name]
    start(tmp_path, first)
    before = (tmp_path / "journal").read_bytes()
    with pytest.raises(ValueError, match=text):
        start(tmp_path, second)
    assert (tmp_path / "journal").read_bytes() == before
    start(tmp_path, first)


def test_the_parts_of_items_are_other_arguments(tmp_path):
    def pair(a, b=0):
        return a, b

    pairs = [(k, k + 1) for k in range(20)]
    assert parallel_map(pair, pairs, starmap=True, resume=tmp_path / "run") == pairs
    with pytest.raises(ValueError, match="what calls the function"):
        parallel_map(pair, pairs, resume=tmp_path / "run")
    assert parallel_map(pair, pairs, starmap=True, resume=tmp_path / "run") == pairs


@pytest.mark.parametrize("kind", [list, iter])
def test_two_iterables_are_not_one_of_pairs(tmp_path, kind):
    def total(x, y=(0, 0)):
        return np.sum(x) + np.sum(y)

    pairs = [(1, 3), (2, 4)]
    assert parallel_map(total, kind([1, 2]), kind([3, 4]), resume=tmp_path / "run") == [4, 6]
    with pytest.raises(ValueError, match="the number of iterables 2 then, 1 now"):
        parallel_map(total, kind(pairs), resume=tmp_path / "run")


def test_equal_values_are_the_same(tmp_path):
    """Whether strings are one object or two, and in lists that hold themselves."""

    def takes_all(row, *args):
        return row

    word = "".join(["a", "b"])
    for words in ([word, word], [word, "".join(["a", "b"])]):
        start(tmp_path, takes_all, args=(words,))
    cyclic = [1]
    cyclic.append(cyclic)
    (tmp_path / "cyclic").mkdir()
    for _ in range(2):
        start(tmp_path / "cyclic", takes_all, args=(cyclic,))


def test_the_same_function_in_another_process(tmp_path):
    """Digests do not depend on the hash seed, addresses, the place in the file, or on how often code has run."""
    script = """
        import sys, numpy as np
        {comment}
        from parwise import parallel_apply
        class Scale:
            words = {{"a", "b", "c"}}
            def __init__(self, by): self.by, self.names = by, {{"x", "y", "z"}}
            def __call__(self, row): return row * self.by if "a" in {{"a", "b", "q"}} else np.nan
        scale = Scale(2.0)
        def f(row, *, k=frozenset({{"u", "v"}})): return scale(row) + len(k) + len(Scale.words)
        for k in range({runs}): f(1.0)
        out = np.lib.format.open_memmap("out", mode={mode!r}, shape=(5, 3), dtype="f8")
        parallel_apply(f, np.arange(15.0).reshape(5, 3), out=out, resume="journal", args=())
        print(out.sum())
        """
    for seed, comment, runs, mode in ((1, "", 0, "w+"), (2, "# more\n        #", 5000, "r+")):
        text = textwrap.dedent(script.format(comment=comment, runs=runs, mode=mode))
        (tmp_path / "script.py").write_text(text)
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        done = subprocess.run(
            [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.stderr == ""
        assert float(done.stdout) == 2 * 105 + 75


CALLS = {
    "array": ({}, {"array": A + 1}, "array 0 changed"),
    "layout": ({}, {"array": np.asfortranarray(A)}, "array 0 changed"),
    "axis": ({"axis": 0}, {"axis": -2}, r"axis \(0,\) then, \(-2,\) now"),
    "dtype": ({}, {"array": A.astype("f4")}, r"dtype of array 0 \(40, 3\) float64 then, \(40, 3\) float32 now"),
    "args": ({"args": (1,)}, {"args": (2,)}, r"args\[0\] changed"),
    "more args": ({"args": (1,)}, {"args": (1, 2)}, r"args\[1\] is new"),
    "kwargs": ({"kwargs": {"k": 1}}, {"kwargs": {"k": "1"}}, r"kwargs\['k'\] changed"),
    "blocks": ({"vectorized": True, "chunk": 3}, {"vectorized": True, "chunk": 4}, "the blocks changed"),
    "vectorized": ({}, {"vectorized": True}, "vectorized False then, True now"),
    "depth": (
        {"vectorized": True, "chunk": 3, "depth": 1},
        {"vectorized": True, "chunk": 3, "depth": 1, "boundary": "wrap"},
        "depth and boundary 1 None .* then, 1 wrap .* now",
    ),
    "rng": ({"rng": 1}, {"rng": 2}, "rng PCG64 of 1, .* then, PCG64 of 2, .* now"),
    "no rng": ({"rng": 1}, {}, "rng PCG64 of 1, .* then, None now"),
}


@pytest.mark.parametrize("name", CALLS)
def test_other_arguments(tmp_path, name):
    def takes_all(row, *args, rng=None, k=None):
        return row

    first, second, text = CALLS[name]
    start(tmp_path, takes_all, **first)
    with pytest.raises(ValueError, match=text):
        start(tmp_path, takes_all, **second)


def test_other_versions(tmp_path, monkeypatch):
    start(tmp_path)
    monkeypatch.setattr(np, "__version__", "9.8.7")
    monkeypatch.setattr(parwise, "__version__", "6.5")
    real = platform.python_version()
    monkeypatch.setattr(platform, "python_version", lambda: "4.0.1")
    with pytest.raises(
        ValueError, match=rf"Python {real} then, 4.0.1 now; NumPy .* then, 9.8.7 now; parwise .*, 6.5 now"
    ):
        start(tmp_path)


def test_other_files(tmp_path):
    """An array in a file is known by the file's path, size and time, and is not read."""
    np.save(tmp_path / "in.npy", A)
    made.append("zarr")
    zarr.save_array(tmp_path / "in.zarr", A)
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["x"] = A
    arrays = {
        "npy": lambda: np.load(tmp_path / "in.npy", mmap_mode="r"),
        "zarr": lambda: zarr.open_array(tmp_path / "in.zarr", mode="r"),
        "hdf5": lambda: h5py.File(tmp_path / "in.h5")["x"],
    }
    for name, array in arrays.items():
        (tmp_path / name).mkdir()
        for _ in range(2):
            start(tmp_path / name, array=array())
    np.save(tmp_path / "in.npy", A)
    zarr.open_array(tmp_path / "in.zarr", mode="r+")[3, 1] = 5
    with h5py.File(tmp_path / "in.h5", "a") as file:
        file["x"][3, 1] = 5
    for name, array in arrays.items():
        with pytest.raises(ValueError, match="array 0 /.* then, .* now"):
            start(tmp_path / name, array=array())


def test_input_and_output_in_one_file(tmp_path):
    """Its time changes as results are written: the values are compared instead."""
    with h5py.File(tmp_path / "file", "w") as file:
        file["a"] = A
        file.create_dataset("out", A.shape, "f8")
    for _ in range(2):
        with h5py.File(tmp_path / "file", "a") as file:
            parallel_apply(np.sort, file["a"], out=file["out"], resume=tmp_path / "journal")
    with h5py.File(tmp_path / "file", "a") as file:
        file["a"][0, 0] = 7
        with pytest.raises(ValueError, match="array 0 changed"):
            parallel_apply(np.sort, file["a"], out=file["out"], resume=tmp_path / "journal")


def test_an_out_that_was_made_anew(tmp_path):
    start(tmp_path)
    np.lib.format.open_memmap(tmp_path / "out", mode="w+", shape=A.shape, dtype="f8")
    with pytest.raises(
        ValueError, match="out does not hold what the journal resume='.*' lists for elements 0 to .*mode='r\\+'"
    ):
        start(tmp_path)


def test_other_outs(tmp_path):
    start(tmp_path)
    with pytest.raises(ValueError, match=r"chunks of out\[0\] \(40, 3\) float64 None then, .* float32 None now"):
        parallel_apply(np.sort, A, out=memmap(tmp_path / "o2", dtype="f4"), resume=tmp_path / "journal")
    os.makedirs(tmp_path / "folder")
    os.rename(tmp_path / "journal", tmp_path / "folder" / "journal")
    with pytest.raises(ValueError, match="the kind of call parallel_apply then, parallel_map now"):
        parallel_map(np.sort, list(A), resume=tmp_path / "folder")


def outs(tmp_path):
    yield None, "needs out=, an array in files"
    yield np.empty(A.shape), "got an ndarray in memory"
    yield A, "got an ndarray in memory|apart from what func reads"
    copy = memmap(tmp_path / "copy")
    yield np.memmap(tmp_path / "copy", mode="c", shape=A.shape, dtype="f8"), "got an memmap in memory"
    del copy
    made.append("zarr")
    yield zarr.create_array({}, shape=A.shape, dtype="f8", chunks=(4, 3)), "in a MemoryStore of zarr"
    yield (
        zarr_array(tmp_path / "one", chunks=(40, 1)),
        "resume could keep nothing before the end: one chunk of out has all",
    )
    yield dataset(tmp_path / "h5", chunks=(4, 3), compression="gzip"), "this dataset of h5py is compressed or filtered"
    yield (
        h5py.File("x", "w", driver="core", backing_store=False).create_dataset("x", A.shape, "f8"),
        "the h5py driver 'core'",
    )


def test_outs_that_keep_nothing(tmp_path):
    for number, (out, text) in enumerate(outs(tmp_path)):
        with pytest.raises(ValueError, match=text):
            parallel_apply(never, A, out=out, resume=tmp_path / f"journal {number}")
        assert not (tmp_path / f"journal {number}").exists()

    class Lists:
        shape, dtype = A.shape, A.dtype
        __setitem__ = None

    with pytest.raises(TypeError, match=r"resume needs an out of np.memmap, zarr or h5py.*Lists"):
        parallel_apply(never, A, out=Lists(), resume=tmp_path / "journal")


def test_blocks_and_chunks_without_common_ends(tmp_path):
    out = zarr_array(tmp_path / "out", chunks=(7, 3))
    how = {"out": out, "vectorized": True, "resume": tmp_path / "journal"}
    with pytest.raises(
        ValueError, match="no block of 9 elements ends where a chunk of out does; pass as chunk= a mult"
    ):
        parallel_apply(never, A, chunk=9, **how)
    assert_same(parallel_apply(np.negative, A, chunk=14, **how)[...], -A)


def test_labelled_maps(tmp_path):
    import xarray

    import parwise.xarray  # noqa: F401 - registers .par

    with pytest.raises(
        ValueError, match="resume='journal' needs an array in files .* pass out=, .* to .par.map of a DataArray"
    ):
        xarray.DataArray(A, dims=("x", "y")).par.map(never, "x", resume="journal")


def test_arguments_that_are_written_over(tmp_path):
    a = memmap(tmp_path / "a")
    for out in (a, np.lib.format.open_memmap(tmp_path / "a", mode="r+")):
        with pytest.raises(ValueError, match="apart from what func reads"):
            parallel_apply(never, a, out=out, resume=tmp_path / "journal")


def test_calls_that_cannot_be_resumed(tmp_path):
    with pytest.raises(ValueError, match="is for parallel_map, which returns all results"):
        parallel_imap(never, [1], resume=tmp_path / "results")
    with (
        pytest.raises(ValueError, match="is the journal of one call; pass it to that call"),
        parwise.options(resume="j"),
    ):
        pass
    with pytest.raises(ValueError, match="needs out=, an array in files"):
        parwise.vectorize(never, resume=tmp_path / "journal")(A)
    with pytest.raises(TypeError, match=r"item 1 cannot be pickled \(TypeError: .*lock"):
        parallel_map(never, [1, threading.Lock()], resume=tmp_path / "results", executor="threads")


def test_items_that_were_finished_and_changed(tmp_path):
    how = {"resume": tmp_path / "results"}
    parallel_map(str, ["a", "b"], **how)
    for items in (["a", "c"], iter(["a", "c"])):
        with pytest.raises(ValueError, match="items 0 to 1 have results in the folder resume=.*different now"):
            parallel_map(str, items, **how)
    for items in (["a"], iter(["a"])):
        with pytest.raises(
            ValueError, match="there are 1 items, but|the items end before item 1, but 2 items have results"
        ):
            parallel_map(str, items, **how)
    os.unlink(tmp_path / "results" / "results-000000.pkl")
    with pytest.raises(ValueError, match="lacks results that the journal beside it lists"):
        parallel_map(str, ["a", "b"], **how)


def test_files_of_other_kinds_are_left_alone(tmp_path):
    (tmp_path / "journal").write_text("something else\n")
    with pytest.raises(ValueError, match="is not a journal of parwise, and was left as it is"):
        start(tmp_path)
    assert (tmp_path / "journal").read_text() == "something else\n"
    with pytest.raises(ValueError, match="is a folder; pass the path of a file"):
        parallel_apply(never, A, out=memmap(tmp_path / "out"), resume=tmp_path)
    with pytest.raises(ValueError, match="is a file; pass the path of a folder"):
        parallel_map(never, [1], resume=tmp_path / "journal")


@pytest.mark.parametrize("where", ["out", "input", "argument", "a link"])
def test_files_of_the_call_are_left_alone(tmp_path, where):
    """Zeros, too, which a journal that never reached the disk may consist of."""
    arrays = {name: np.memmap(tmp_path / name, "f8", "w+", shape=A.shape) for name in ("out", "input", "argument")}
    (tmp_path / "a link").hardlink_to(tmp_path / "input")
    with pytest.raises(ValueError, match="is the file of an array of this call, over which the journal would be wr"):
        parallel_apply(never, arrays["input"], args=(arrays["argument"],), out=arrays["out"], resume=tmp_path / where)
    assert (tmp_path / where).read_bytes() == bytes(A.nbytes)


def test_two_runs_at_a_time(tmp_path):
    """In this process and in others; a run that is killed leaves no lock."""
    begun, end = threading.Event(), threading.Event()

    def waits(row):
        begun.set()
        assert end.wait(30)
        return row

    how = {"resume": tmp_path / "journal", "executor": "serial"}
    thread = threading.Thread(target=lambda: parallel_apply(waits, A, out=memmap(tmp_path / "out"), **how))
    thread.start()
    assert begun.wait(30)
    try:
        for _ in range(2):  # a refused run must not end the lock of the one at work
            with pytest.raises(ParwiseError, match=rf"of a run at work in this process \({os.getpid()}\)"):
                parallel_apply(waits, A, out=memmap(tmp_path / "out"), **how)
        code = (
            "import sys; from parwise._api.resume.journal import Journal\n"
            "try: Journal(sys.argv[1])\nexcept Exception as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "journal")], capture_output=True, text=True, timeout=60
        )
        assert "of a run at work in another process" in done.stdout, done
    finally:
        end.set()
        thread.join()
    assert_same(np.asarray(memmap(tmp_path / "out")), A)
