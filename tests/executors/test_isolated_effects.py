"""Calls that workers alone compute: what a function draws from or changes beside its result is told once."""

from __future__ import annotations

import multiprocessing
import random
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from parwise import Pool, ReproducibilityWarning, parallel_apply, parallel_imap, parallel_map

from ..conftest import made

SEEN: list[float] = []
GENERATOR = np.random.default_rng(3)


def draws(x):
    return GENERATOR.normal()


def draws_globally(x):
    return np.random.normal()


def draws_from_random(x):
    import random

    return random.random()


def notes(x):
    SEEN.append(x)
    return x


class Counts:
    def __init__(self):
        self.calls, self.generator = 0, np.random.RandomState(1)

    def __call__(self, x):
        self.calls += 1
        return x

    def draw(self, x):
        return self.generator.normal()


def draws_from_argument(x, generator):
    return generator.random()


COPIED = "a generator of which each worker has a copy, so several workers draw the same numbers. Pass rng=seed"
TOLD = {
    "global": (draws, {}, f"the function draws from GENERATOR, {COPIED}"),
    "attribute": (Counts().draw, {}, f"the function draws from self.generator, {COPIED}"),
    "argument": (draws_from_argument, {"args": (random.Random(2),)}, f"the function draws from args[0], {COPIED}"),
    "named argument": (
        draws_from_argument,
        {"kwargs": {"generator": np.random.default_rng(2)}},
        f"the function draws from kwargs['generator'], {COPIED}",
    ),
    "np.random": (draws_globally, {}, "the function draws from np.random, a global generator: each worker process has"),
    "random": (draws_from_random, {}, "the function draws from the module random, a global generator: each worker"),
    "list": (notes, {}, "the function changes the global 'SEEN' (list), and none of the changes arrives"),
    "count": (Counts(), {}, "the function changes the attribute of the Counts object 'calls' (int), and none of"),
}
HOW = {"isolate": {"isolate": True}, "timeout": {"timeout": 60}}


def told(call):
    """Warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(one.category is ReproducibilityWarning and one.filename == __file__ for one in caught)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("how", HOW)
def test_effects_are_told_once(name, how):
    func, given, expected = TOLD[name]
    (text,) = told(lambda: parallel_apply(func, np.zeros(40), workers=2, **HOW[how], **given))
    assert text.startswith(expected)
    assert text.endswith("verify=False leaves this check out")
    assert told(lambda: parallel_apply(func, np.zeros(40), workers=2, verify=False, **HOW[how], **given)) == []


def test_with_an_executor_of_another_library():
    made.append("spawn")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        for name in ("global", "list", "np.random"):
            func, given, expected = TOLD[name]
            texts = told(lambda: parallel_apply(func, np.zeros(8), executor=executor, isolate=True, **given))  # noqa: B023
            if name == "np.random":  # perhaps drawn from by another thread there
                assert texts == []
            else:
                assert [text.startswith(expected) for text in texts] == [True]


def test_numpys_generators_are_not_imported():
    def imported(x):
        return "numpy.random" in sys.modules

    with Pool(1) as pool:
        assert parallel_map(imported, range(3), isolate=True, executor=pool) == [False] * 3


def test_in_iteration():
    (text,) = told(lambda: list(parallel_imap(draws, range(20), workers=2, isolate=True)))
    assert text.startswith("the function draws from GENERATOR")


def test_as_errors_they_end_the_call():
    with pytest.raises(ReproducibilityWarning, match="draws from GENERATOR"):
        parallel_map(draws, range(20), workers=2, isolate=True)


def test_one_worker_draws_the_numbers_of_the_loop():
    generator = np.random.default_rng(5)

    def draw(x):
        return generator.normal()

    found = parallel_apply(draw, np.zeros(20), workers=1, isolate=True)
    assert found.tobytes() == np.array([np.random.default_rng(5).normal(size=20)]).tobytes()


def seed():
    global GENERATOR
    GENERATOR = np.random.default_rng()
    np.random.seed()


@pytest.mark.parametrize("name", ["global", "np.random", "list"])
def test_what_an_initializer_makes_is_the_processes_own(name):
    func = TOLD[name][0]
    with Pool(2, initializer=seed) as pool:
        assert told(lambda: parallel_apply(func, np.zeros(20), executor=pool)) == []


def test_so_is_what_setup_makes():
    before = GENERATOR, np.random.get_state()
    try:
        assert told(lambda: parallel_apply(draws, np.zeros(20), workers=2, isolate=True, setup=seed)) == []
    finally:
        globals()["GENERATOR"] = before[0]
        np.random.set_state(before[1])


def reads(x):
    return x + len(SEEN) + (GENERATOR.random() if x > 100 else 0.0)


def makes_its_own(x, rng):
    return rng.normal() + np.random.default_rng(4).normal()


def test_what_is_only_read_is_not_told():
    assert told(lambda: parallel_apply(reads, np.arange(40.0), workers=2, isolate=True)) == []
    assert told(lambda: parallel_apply(makes_its_own, np.arange(40.0), workers=2, isolate=True, rng=1)) == []
