"""Calls that workers alone compute: what a function draws from or changes beside its result is told once."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from parwise import Pool, ReproducibilityWarning, parallel_apply, parallel_imap, parallel_map

from ..conftest import made
from ..support.oracle import assert_same

SEEN: list[float] = []
GENERATOR = np.random.default_rng(3)


def pause():
    """Take so long that each worker has a task."""
    time.sleep(0.001)
    return 0.0


def draws(x):
    return GENERATOR.normal() + pause()


def with_helper():
    space = {"GENERATOR": GENERATOR, "time": time, "__name__": "made_by_hand"}
    exec("def helper():\n    time.sleep(0.001)\n    return GENERATOR.normal()\ndef f(x):\n    return helper()", space)
    return space["f"]


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
        return self.generator.normal() + pause()


def draws_from_argument(x, generator):
    return generator.random() + pause()


class OfClass:
    generator = np.random.default_rng(6)

    def draw(self, x):
        return self.generator.normal() + pause()


class OfSlot:
    __slots__ = ("generator",)

    def __init__(self):
        self.generator = random.Random(6)

    def draw(self, x):
        return self.generator.random() + pause()


class Unit(float):
    def __eq__(self, other):
        raise TypeError("another unit")

    __ne__ = __eq__
    __hash__ = float.__hash__


LAST = Unit(0)


def keeps_the_last(x):
    global LAST
    LAST = Unit(float(LAST) + 1)  # another one in each call: a worker that is used again has the one before
    return x


COPIED = "a generator of which each worker has a copy, so several workers draw the same numbers. Pass rng=seed"
READ = "of which each worker has a copy, so several workers read the same. Read it before the call, and map over"
ITERATOR = iter(range(1000))
TOLD = {
    "global": (draws, {}, f"the function draws from GENERATOR, {COPIED}"),
    "attribute": (Counts().draw, {}, f"the function draws from self.generator, {COPIED}"),
    "argument": (draws_from_argument, {"args": (random.Random(2),)}, f"the function draws from args[0], {COPIED}"),
    "named argument": (
        draws_from_argument,
        {"kwargs": {"generator": np.random.default_rng(2)}},
        f"the function draws from kwargs['generator'], {COPIED}",
    ),
    "helper": (with_helper(), {}, f"the function draws from GENERATOR, {COPIED}"),
    "generator expression": (
        lambda x: sum(GENERATOR.normal() + pause() for _ in range(2)),
        {},
        f"the function draws from GENERATOR, {COPIED}",
    ),
    "default": (
        lambda x, rng=GENERATOR: rng.normal() + pause(),
        {},
        f"the function draws from the default of rng, {COPIED}",
    ),
    "partial": (
        functools.partial(lambda rng, x: rng.normal() + pause(), GENERATOR),
        {},
        f"the function draws from args[0] of the partial, {COPIED}",
    ),
    "named in a partial": (
        functools.partial(draws_from_argument, generator=GENERATOR),
        {},
        f"the function draws from generator= of the partial, {COPIED}",
    ),
    "class": (OfClass().draw, {}, f"the function draws from self.generator, {COPIED}"),
    "slot": (OfSlot().draw, {}, f"the function draws from self.generator, {COPIED}"),
    "in a dict": (
        lambda x, state: state["rng"].normal() + pause(),
        {"args": ({"rng": GENERATOR},)},
        f"the function draws from args[0]['rng'], {COPIED}",
    ),
    "spawned": (lambda x: GENERATOR.spawn(1)[0].normal() + pause(), {}, f"the function draws from GENERATOR, {COPIED}"),
    "iterator": (lambda x: next(ITERATOR) + pause(), {}, f"the function reads on in ITERATOR, {READ}"),
    "lines": (
        lambda x, state: float(state["file"].readline()) + pause(),
        {"args": ({"file": io.StringIO("1\n" * 1000)},)},
        f"the function reads on in args[0]['file'], {READ}",
    ),
    "bytes": (
        lambda x, file: file.read(1)[0] + pause(),
        {"args": (io.BytesIO(bytes(1000)),)},
        f"the function reads on in args[0], {READ}",
    ),
    "number whose class cannot compare": (keeps_the_last, {}, "the function changes the global 'LAST' (Unit), and"),
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


def told_once(call):
    """The one warning of a call. Of generators there is none where one worker has computed all, as in a short call."""
    for _ in range(20):
        texts = told(call)
        if texts:
            break
    (text,) = texts
    return text


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("how", HOW)
def test_effects_are_told_once(name, how):
    func, given, expected = TOLD[name]
    text = told_once(lambda: parallel_apply(func, np.zeros(100), workers=2, **HOW[how], **given))
    assert text.startswith(expected)
    assert text.endswith("verify=False leaves this check out")
    assert told(lambda: parallel_apply(func, np.zeros(40), workers=2, verify=False, **HOW[how], **given)) == []


def reads_from_the_start(x, file):
    file.seek(0)
    return float(file.readline()) + pause()


def writes(x, file):
    print(x, file=file)
    return x + pause()


@pytest.mark.parametrize(("func", "file"), [(reads_from_the_start, io.StringIO("1\n2\n")), (writes, io.StringIO())])
def test_files_that_are_not_read_on_in_are_nobodys_concern(func, file):
    assert told(lambda: parallel_apply(func, np.zeros(100), args=(file,), isolate=True, workers=2)) == []


def test_with_an_executor_of_another_library():
    made.append("spawn")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        for name in ("global", "list"):
            func, given, expected = TOLD[name]
            how = {"executor": executor, "isolate": True, **given}
            text = told_once(lambda: parallel_apply(func, np.zeros(40), **how))  # noqa: B023
            assert text.startswith(expected)


def test_numpys_generators_are_not_imported():
    def imported(x):
        return "numpy.random" in sys.modules

    with Pool(1) as pool:
        assert parallel_map(imported, range(3), isolate=True, executor=pool) == [False] * 3


def test_in_iteration():
    text = told_once(lambda: list(parallel_imap(draws, range(100), workers=2, isolate=True)))
    assert text.startswith("the function draws from GENERATOR")


def test_as_errors_they_end_the_call():
    with pytest.raises(ReproducibilityWarning, match="changes the global 'SEEN'"):
        parallel_map(notes, range(20), workers=2, isolate=True)
    assert parallel_map(abs, range(20), workers=2, isolate=True) == list(range(20))


def test_one_worker_draws_the_numbers_of_the_loop():
    generator = np.random.default_rng(5)

    def draw(x):
        return generator.normal()

    want = np.array(np.random.default_rng(5).normal(size=20)).tobytes()
    assert parallel_apply(draw, np.zeros(20), workers=1, isolate=True).tobytes() == want
    assert parallel_apply(draw, np.zeros(1), workers=2, isolate=True).tobytes() == want[:8]


def test_a_worker_that_is_replaced_begins_with_the_same_numbers(tmp_path):
    generator = np.random.default_rng(5)

    def draw(x):
        value = generator.normal()
        if x == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    (text,) = told(lambda: parallel_apply(draw, np.arange(8), workers=1, isolate=True, retries=2))
    assert text.startswith("the function draws from generator")


def seed():
    global GENERATOR
    GENERATOR = np.random.default_rng()


def seed_in_place():
    GENERATOR.bit_generator.state = np.random.default_rng().bit_generator.state


def prepare_something_else():
    pass


@pytest.mark.parametrize("prepare", [seed, seed_in_place])
def test_what_an_initializer_seeds_is_the_processes_own(prepare):
    with Pool(2, initializer=prepare) as pool:
        assert told(lambda: parallel_apply(draws, np.zeros(100), executor=pool)) == []
        assert told(lambda: parallel_apply(notes, np.zeros(20), executor=pool)) == []
    with Pool(2, initializer=prepare_something_else) as pool:
        assert told_once(lambda: parallel_apply(draws, np.zeros(100), executor=pool))


def test_so_is_what_setup_seeds():
    how = {"workers": 2, "isolate": True}
    before = GENERATOR
    try:
        assert told(lambda: parallel_apply(draws, np.zeros(100), setup=seed, **how)) == []
    finally:
        globals()["GENERATOR"] = before
    assert told_once(lambda: parallel_apply(draws, np.zeros(100), setup=prepare_something_else, **how))


class Model:
    def __init__(self):
        self.rng, self.time = np.random.default_rng(0), 0.0

    def run(self, x):
        self.rng = np.random.default_rng(int(x))
        self.time = x
        return self.rng.normal() + self.later()

    def later(self):
        return self.time


def seeds_its_own(x):
    generator = np.random.RandomState(0)
    generator.seed(int(x))
    return generator.normal()


RANDOM_STATE = np.random.RandomState(0)


def seeds_each(x):
    RANDOM_STATE.seed(int(x))
    return RANDOM_STATE.normal()


def has_another_bit_generator(x):
    np.random.set_bit_generator(np.random.PCG64(int(x)))
    return np.random.normal()


HARMLESS = [Model().run, seeds_its_own, seeds_each, has_another_bit_generator]


@pytest.fixture
def own_bit_generator():
    """Give NumPy its own global generator back."""
    before = np.random.get_bit_generator()
    yield
    np.random.set_bit_generator(before)


@pytest.mark.usefixtures("own_bit_generator")
@pytest.mark.parametrize("func", HARMLESS, ids=["model", "own", "seeded", "bit generator"])
def test_results_that_depend_on_no_copy(func):
    found = []
    x = np.arange(100.0)
    assert told(lambda: found.append(parallel_apply(func, x, workers=2, isolate=True))) == []
    assert_same(found[0], parallel_apply(func, x, executor="serial"))


def reads(x):
    return x + len(SEEN) + (GENERATOR.random() if x > 100 else 0.0)


def makes_its_own(x, rng):
    return rng.normal() + np.random.default_rng(4).normal()


def test_what_is_only_read_is_not_told():
    assert told(lambda: parallel_apply(reads, np.arange(40.0), workers=2, isolate=True)) == []
    assert told(lambda: parallel_apply(makes_its_own, np.arange(40.0), workers=2, isolate=True, rng=1)) == []
