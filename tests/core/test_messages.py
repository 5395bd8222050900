"""What a user reads: unknown options, items in errors, what the function got, and values as short text."""

from __future__ import annotations

import dataclasses
import os
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import parwise
from parwise import options, parallel, parallel_apply, parallel_imap, parallel_map
from parwise._core.messages.shown import MOST_CHARACTERS, shown
from parwise._core.messages.unknown_options import _GROUPS, unknown_option
from parwise._core.options.options import Options

from ..support.functions import ISOLATED

A = np.arange(12.0).reshape(3, 4)
PATHS = [Path(f"run{number:03}.csv") for number in range(60)]


def never(*args):
    raise AssertionError("the function was called")


def blur(image, sigma, mode="reflect", *, workers=None):
    raise AssertionError("the function was called")


SYNONYMS = {
    "n_jobs": (2, "write workers=2"),
    "processes": (2, "write workers=2"),
    "max_workers": (2, "write workers=2"),
    "num_workers": (2, "write workers=2"),
    "nb_workers": (-1, "leave it out: workers=None"),
    "chunksize": (10, "leave it out: parwise decides how many elements"),
    "chunk_size": (10, "leave it out: parwise decides how many elements"),
    "batch_size": ("auto", "leave it out: parwise decides how many elements"),
    "verbose": (10, "write progress=True"),
    "progress_bar": (True, "write progress=True"),
    "desc": ("reading", "write progress='reading', the label of the bar"),
    "label": (None, "leave it out: progress=False is the default"),
    "proceses": (2, "write workers=2"),
    "chunk_sise": (2, "leave it out: parwise decides"),
    "starmap": (True, "starmap= is an argument of parallel_map and parallel_imap"),
    "ordered": (False, "ordered= is an argument of parallel_imap, which yields results as soon"),
    "zzz": (1, "the options are workers, executor"),
    "seed": (3, "write rng=3, and take rng= in the function"),
    "random_state": (3, "write rng=3, and take rng= in the function"),
    "overlap": (2, "write depth=2, with vectorized=True"),
    "mode": ("periodic", "write boundary='wrap'"),
    "backend": ("threading", "write executor='threads'"),
    "scheduler": ("synchronous", "write executor='serial'"),
    "prefer": ("processes", "write executor='processes'"),
    "axes": ((0, 1), r"write axis=\(0, 1\)"),
    "input_core_dims": ([["x"]], "leave it out: .par.map"),
    "dtype": (float, "leave it out: results have the dtype"),
    "meta": (A, "leave it out: results have the dtype"),
    "func_args": ((2,), r"write args=\(...,\)"),
    "func_kwargs": ({"sigma": 2}, r"write kwargs=\{'sigma': 2\}"),
    "initializer": (never, r"write setup=f.*Pool\(initializer="),
    "callback": (print, "leave it out: use parallel_imap"),
    "disable": (True, "leave it out: progress=False is the default"),
    "quiet": (False, "write progress=True"),
    "signature": ("(n)->()", "leave it out: axis= says what is looped over"),
    "excluded": ({1}, r"write kwargs=\{...\}"),
    "array": (A, "pass the function, and then what it is mapped over, by position"),
    "memory": (2, "the options are workers"),
    "calback": (print, "leave it out: use parallel_imap"),
}


@pytest.mark.parametrize("name", SYNONYMS)
def test_names_of_other_libraries(name):
    value, text = SYNONYMS[name]
    with pytest.raises(TypeError, match=f"unknown option '{name}': {text}"):
        parallel_apply(never, A, **{name: value})


def test_each_synonym_names_an_argument_that_there_is():
    names = {*Options.__annotations__, "axis", "args", "kwargs", "vectorized", "depth", "boundary", "out", "rng"}
    for own, remedy, synonyms in _GROUPS:
        assert own in {*names, "drop_none", "starmap", "ordered", "output_dtypes", ""}
        assert not names & set(synonyms.split())
        assert isinstance(remedy(2), str)


@pytest.mark.parametrize("name", ["workers", "executor", "progress", "timeout", "retries", "rng"])
def test_what_is_to_be_written_can_be_written(name):
    """The line that the message suggests is one that the call accepts."""
    synonym, value = {
        "workers": ("n_jobs", 2),
        "executor": ("backend", "threading"),
        "progress": ("verbose", False),
        "timeout": ("task_timeout", 60.0),
        "retries": ("max_retries", 2),
        "rng": ("seed", 5),
    }[name]
    with pytest.raises(TypeError) as caught:
        parallel_map(never, [1], **{synonym: value})
    line = str(caught.value).partition(": write ")[2].partition(", and take")[0] or "progress=False"
    assert line.startswith(f"{name}=")
    scope = {"map": parallel_map, "f": lambda x, rng=None: x}
    assert eval(f"map(f, [1, 2], {line})", scope) == [1, 2]


def test_parameters_of_the_function():
    with pytest.raises(TypeError, match=r"'sigma': blur takes 'sigma'; pass kwargs=\{'sigma': 2\}$"):
        parallel_apply(blur, A, sigma=2)
    with pytest.raises(TypeError, match="blur takes 'mode'.*for parwise itself, write boundary='wrap'"):
        parallel_apply(blur, A, mode="wrap")
    with pytest.raises(TypeError, match=r"pass kwargs=\{'sigma': \.\.\.\}"):
        parallel_apply(blur, A, sigma=A)
    with pytest.raises(TypeError, match="blur takes 'sigma'; pass it in the call, as sigma=2"):
        parallel(blur, sigma=2)


DOORS = {
    "parallel_apply": lambda **k: parallel_apply(never, A, **k),
    "parallel_map": lambda **k: parallel_map(never, [1], **k),
    "parallel_imap": lambda **k: parallel_imap(never, [1], **k),
    "parallel": lambda **k: parallel(**k),
    "options": lambda **k: options(**k).__enter__(),
    "vectorize": lambda **k: parwise.vectorize(never, **k),
    "Pool": lambda **k: parwise.Pool(**k),
    "Pool.imap": lambda **k: parwise.Pool(1).imap(never, [1], **k),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_knows_the_synonyms(door):
    with pytest.raises(TypeError, match="'max_workers': write workers=2"):
        DOORS[door](max_workers=2)
    with pytest.raises(TypeError, match="did you mean 'workers'"):
        DOORS[door](wrokers=2)


def test_what_other_functions_take():
    with pytest.raises(TypeError, match="'overlap': depth= is an argument of parallel_apply, for arrays"):
        parallel_map(never, [1], overlap=2)
    with pytest.raises(TypeError, match=r"'dim': dim= is an argument of \.par\.map.*axis="):
        parallel_apply(never, A, dim="time")
    with pytest.raises(TypeError, match=r"Pool takes no timeout=, .*parallel_apply\(f, array, timeout=..., executor="):
        parwise.Pool(timeout=3)
    with pytest.raises(TypeError, match="the options are workers, executor, .*, axis, "):
        parallel_apply(never, A, zzz=1)


def test_names_that_only_look_like_one_of_another_library():
    """`order` is nearest to `border`, of boundaries, which a list has not."""
    with pytest.raises(TypeError, match="'order': ordered= is an argument of parallel_imap"):
        parallel_map(never, [1], order=False)
    with pytest.raises(TypeError, match="'order': did you mean 'ordered'"):
        parallel_imap(never, [1], order=False)


def test_values_in_messages_are_short():
    assert len(unknown_option("seed", "x" * 10**6, ["rng"])) < 200
    assert "rng=..." in unknown_option("seed", np.zeros(9), ["rng"])


def test_options_of_a_decorated_function():
    @parallel
    def f(x):
        raise AssertionError("called")

    for items in ([1, 2], A):
        with pytest.raises(TypeError, match=r"f takes no argument 'workers'; .* write @parallel\(workers=2\)"):
            f.parallel(items, workers=2)

    @parallel
    def g(x, workers):
        return x + workers

    assert g.parallel([1, 2], workers=2) == [3, 4]
    with pytest.raises(TypeError, match=r"no argument 'workers'.*with parwise.options\(workers=2\)"):
        parwise.apply_along_axis(f, 0, A, workers=2)


def test_a_list_for_an_array():
    with pytest.raises(TypeError, match=r"array 0 is a list.*or use parallel_map\(func, x\)"):
        parallel_apply(never, PATHS)


WAYS = [{}, ISOLATED, {"executor": "threads", "workers": 2}, {"workers": 1}]
FEEDS = [list, iter, lambda items: (one for one in items)]


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("way", WAYS)
def test_an_error_shows_its_item(way, feed):
    def read(path, *more):
        if path.name == "run031.csv":
            raise OSError("empty")
        return 1

    with pytest.raises(OSError, match="empty") as caught:
        parallel_map(read, feed(PATHS), **way)
    assert caught.value.__notes__ == ["in item 31: PosixPath('run031.csv')"]
    with pytest.raises(OSError, match="empty") as caught:
        list(parallel_imap(read, feed(PATHS), range(60), args=(0,), **way))
    assert caught.value.__notes__ == ["in item 31: PosixPath('run031.csv'), 31"]
    with pytest.warns(RuntimeWarning, match=r"in item 31: PosixPath\('run031.csv'\): OSError: empty"):
        parallel_map(read, feed(PATHS), errors="ignore", **way)


def test_a_death_shows_its_item():
    with pytest.raises(parwise.WorkerDiedError, match=r"exit code 3 in item 31: PosixPath\('run031.csv'\)"):
        parallel_map(lambda path: os._exit(3) if path.name == "run031.csv" else 1, PATHS, **ISOLATED)


@pytest.mark.parametrize("way", WAYS)
def test_an_error_shows_what_the_function_got(way):
    def notes(*args, **kwargs):
        with pytest.raises((ValueError, TypeError, IndexError)) as caught:
            parallel_apply(*args, **kwargs, **way)
        return caught.value.__notes__[1:]

    images, short = np.zeros((5, 6, 6)), np.zeros((5, 2))
    axis = "axis=0 is what is mapped over"
    assert notes(lambda a: a @ np.zeros(5), images) == [f"func got an array of shape (6, 6); {axis}"]
    assert notes(lambda a, b: a + b, images, short) == [f"func got shapes (6, 6) and (2,); {axis}"]
    assert notes(lambda a: a[0], np.zeros(4)) == [f"func got single values of dtype float64, not arrays; {axis}"]
    assert notes(lambda a: a[9], images, axis=(1, 2)) == [
        "func got an array of shape (5,); axis=(1, 2) is what is mapped over"
    ]
    assert notes(lambda a: a @ np.zeros(5), images, vectorized=True, chunk=2, depth=1) == [
        "func got a block of shape (3, 6, 6); blocks are cut along axis=0"
    ]
    with pytest.raises(ZeroDivisionError) as caught:  # not of the shape
        parallel_apply(lambda a: 1 // 0, images, **way)
    assert caught.value.__notes__ == ["in element 0 along axis 0"]


@pytest.mark.parametrize("way", WAYS)
def test_arguments_that_do_not_fit(way):
    pairs = [(1, 2), (3, 4)]
    with pytest.raises(TypeError, match="missing 1 required positional argument") as caught:
        parallel_map(lambda a, b: a + b, pairs, **way)
    assert caught.value.__notes__ == [
        "in item 0: (1, 2)",
        "the function was called with 1 argument, but its arguments are (a, b); to pass the parts of each item as "
        "arguments, write parallel_map(f, items, starmap=True)",
    ]
    assert parallel_map(lambda a, b: a + b, pairs, starmap=True, **way) == [3, 7]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'") as caught:
        parallel_map(lambda a, c, b: a + b, pairs, starmap=True, **way)
    assert caught.value.__notes__ == [
        "in item 0: (1, 2)",
        "the function was called with 2 arguments, but its arguments are (a, c, b)",
    ]
    with pytest.raises(TypeError, match="each item is a tuple of arguments, got 1 of type int") as caught:
        parallel_map(lambda a, b: a + b, [1, 2], starmap=True, **way)
    assert caught.value.__notes__ == ["in item 0: 1"]
    with pytest.raises(TypeError) as caught:
        parallel_apply(blur, A, args=(1, 2, 3), **way)
    assert "blur was called with 4 arguments, but its arguments are (image, sigma, mode=" in caught.value.__notes__[1]

    def f(x):
        raise TypeError("inside")

    with pytest.raises(TypeError, match="inside") as caught:
        parallel_map(f, [1, 2], **way)
    assert caught.value.__notes__ == ["in item 0: 1"]


Pair = namedtuple("Pair", "a token")


@dataclasses.dataclass
class Account:
    user: str
    big: list
    password: str = "1234"


class Hostile:
    def __repr__(self):
        raise RuntimeError("no text")


class Container:
    def __len__(self):
        return 10**9

    def __repr__(self):
        raise AssertionError("its text would take long")


class Faulty:
    def __getattr__(self, name):
        raise RuntimeError(name)

    def __repr__(self):
        return "x" * 10**6


LOOP = []
LOOP.append(LOOP)


VALUES = [
    (Path("run031.csv"), "PosixPath('run031.csv')"),
    (Path("/data" * 40, "run031.csv"), "/data/run031.csv')"),
    ("x" * 10**7, "xxx...xxx"),
    (10**5000, "int of 16610 bits"),
    (np.zeros((6, 6)), "array of shape (6, 6), float64"),
    (np.float32(0.5), "np.float32(0.5)"),
    ([1, [2, [3, [4]]]], "[1, [2, [3, ...]]]"),
    (list(range(10**6)), "[0, 1, 2, 3, ...]"),
    ((1,), "(1,)"),
    (set(), "set()"),
    ({"user": "ann", "password": "1234"}, "{'user': 'ann', 'password': ...}"),
    (Pair(1, "1234"), "Pair(a=1, token=...)"),
    (Account("ann", [0] * 10**6), "Account(user='ann', big=[0, 0, 0, 0, ...], password=...)"),
    ("https://ann:1234@host/x.csv", "'https://...@host/x.csv'"),
    (Hostile(), "an object of type Hostile"),
    (Container(), "Container of length 1000000000"),
    (Faulty(), "an object of type Faulty"),
    (LOOP, "[[[...]]]"),
    ("two\nlines", r"'two\nlines'"),
]


@pytest.mark.parametrize(("value", "text"), VALUES, ids=[text for _, text in VALUES])
def test_values_as_text(value, text):
    found = shown(value)
    assert text in found
    assert len(found) <= MOST_CHARACTERS
    assert "1234" not in found
    assert "\n" not in found
