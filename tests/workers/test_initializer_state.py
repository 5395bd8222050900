"""What an initializer or a setup sets in a worker stays, until the caller changes the same."""

from __future__ import annotations

import builtins
import contextvars
import decimal
import logging
import multiprocessing
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from parwise import Pool, parallel_map
from parwise._system.environment import with_changes

from ..support.functions import ISOLATED

level = contextvars.ContextVar("level", default=0)


def prepare():
    """Set all that a worker takes over from the caller otherwise."""
    os.environ["PARWISE_TEST"] = "initializer"
    os.chdir("/")
    os.umask(0o077)
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    sys.path.insert(0, "/first")
    sys.path.append("/last")
    np.seterr(over="raise")
    np.set_printoptions(precision=2)
    decimal.getcontext().prec = 7
    warnings.simplefilter("ignore", BytesWarning)
    logging.getLogger("parwise.test").setLevel(7)
    logging.getLogger("parwise.test").addHandler(logging.NullHandler())
    level.set(3)
    builtins.parwise_test = 1


def see(k=0):
    umask = os.umask(0)
    os.umask(umask)
    return {
        "variable": os.environ.get("PARWISE_TEST"),
        "folder": os.getcwd(),
        "umask": umask,
        "zone": time.strftime("%Z"),
        "path": ("/first" in sys.path[:2], "/last" in sys.path),
        "over": np.geterr()["over"],
        "under": np.geterr()["under"],
        "print": np.get_printoptions()["precision"],
        "decimal": decimal.getcontext().prec,
        "rounding": decimal.getcontext().rounding,
        "filter": any(one[2] is BytesWarning and one[0] == "ignore" for one in warnings.filters),
        "logger": (logging.getLogger("parwise.test").level, len(logging.getLogger("parwise.test").handlers)),
        "level": level.get(),
        "builtins": getattr(builtins, "parwise_test", None),
    }


def spawned():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=prepare) as executor:
        return executor.submit(see).result()


@pytest.fixture(scope="module")
def expected():
    """What the standard library's executor keeps."""
    return spawned()


WAYS = {
    "map": lambda pool: parallel_map(see, range(4), executor=pool),
    "submit": lambda pool: [pool.submit(see).result() for _ in range(3)],
    "pool.map": lambda pool: list(pool.map(see, range(4))),
    "pool.imap": lambda pool: list(pool.imap(see, range(4))),
}


@pytest.mark.parametrize("way", WAYS)
def test_initializer_keeps_what_it_sets(expected, way):
    with Pool(2, initializer=prepare) as pool:
        for _ in range(2):
            assert all(one == expected for one in WAYS[way](pool))


@pytest.mark.parametrize("way", WAYS)
def test_callers_later_changes_are_followed(expected, way, monkeypatch, tmp_path):
    with Pool(2, initializer=prepare) as pool:
        WAYS[way](pool)
        monkeypatch.setenv("PARWISE_TEST", "caller")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path, "/callers"])
        with decimal.localcontext(prec=9), np.errstate(under="raise"):
            changed = {"variable": "caller", "folder": str(tmp_path), "decimal": 9, "under": "raise"}
            assert all(one == expected | changed for one in WAYS[way](pool))
        monkeypatch.undo()
        assert all(one == expected for one in WAYS[way](pool))


def test_setup_keeps_what_it_sets(expected):
    for _ in range(2):
        found = parallel_map(see, range(4), setup=prepare, **ISOLATED)
        assert all(one == expected for one in found)
    assert all(one == see() for one in parallel_map(see, range(4), **ISOLATED))


def test_what_a_function_sets_ends_with_its_call():
    def change(k):
        prepare()
        return k

    with Pool(2, initializer=np.zeros, initargs=(3,)) as pool:
        parallel_map(change, range(4), executor=pool)
        found = parallel_map(see, range(4), executor=pool)
        kept = {"builtins": 1}
        assert all(one == see() | kept for one in found)


def test_settings_that_one_call_merges():
    """Entries of lists and keys of dicts are told apart."""
    state = ({"a": 1, "b": 2, "c": 3}, [1, 2, 3], "x")
    assert with_states(state, state, state, ({"a": 9, "c": 3, "d": 4}, [0, 1, 3, 5], "y")) == (
        {"a": 9, "c": 3, "d": 4},
        [0, 1, 3, 5],
        "y",
    )
    later = ({"a": 1, "b": 7, "c": 3, "e": 5}, [8, 1, 2, 3], "z")
    assert with_states(later, state, state, ({"a": 9, "c": 3, "d": 4}, [0, 1, 3, 5], "y")) == (
        {"a": 9, "b": 7, "c": 3, "d": 4, "e": 5},
        [0, 8, 1, 3, 5],
        "z",
    )


def with_states(*states):
    return tuple(with_changes(Triple(*states[0]), *(Triple(*one) for one in states[1:])))


class Triple(tuple):
    def __new__(cls, *values):
        return super().__new__(cls, values)
