"""A state machine of calls over items: whatever the source, the function and the timing, the loop's list each time."""

from __future__ import annotations

import contextlib
import itertools
import time
from functools import partial

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from parwise import parallel_imap, parallel_map
from parwise._executors.job import task_length
from parwise._executors.processes import background, inline, sharing

from ..support.oracle import assert_same

# Calls of each example; and examples, of which `pytest --hypothesis-profile=long` draws 2,000.
STEPS = 6
EXAMPLES = max(25, hypothesis.settings().max_examples - 100)


class SourceError(Exception):
    """Raised by a source of items."""


class CallError(Exception):
    """Raised by a function."""


class Claims:
    """Iterates over the items of a generator, and claims a length."""

    def __init__(self, make, length):
        self.make, self.length = make, length

    def __len__(self):
        if self.length is None:
            raise TypeError("no length")
        return self.length

    def __iter__(self):
        return self.make()


def paced(items, delays, error_at):
    """Yield items, with delays before them, and raise an error in the place of one."""
    for k, item in enumerate(items):
        if k == error_at:
            raise SourceError(k)
        if delays:
            time.sleep(delays[k % len(delays)])
        yield item


def changing(numbers, kind):
    """Yield one object again and again, with each number in it."""
    array, listed, row = np.zeros((3, 4)), [0, 0], {"x": None}
    for k in numbers:
        array[:] = row["x"] = k
        listed[:] = k, 0
        yield {"array": array, "view": array[::2, 1], "list": listed, "dict": row, "nested": (k, [array])}[kind]


def value(item):
    """A number that tells the content of an item."""
    if isinstance(item, dict):
        return float(item["x"])
    if isinstance(item, tuple):
        return float(item[0] + sum(map(value, item[1])))
    return float(np.sum(item))


def f(item, delays=(), error_at=-1, changes=False, kind="value"):
    """The mapped function: slow or fast by item; it may raise, or change the item."""
    number = value(item)
    if delays:
        time.sleep(delays[int(number) % len(delays)])
    if number == error_at:
        raise CallError(number)
    if changes and isinstance(item, list):
        item.clear()
    if changes and isinstance(item, np.ndarray):
        item *= 0
    return {"value": number, "none": None if number % 3 else number, "list": [number], "array": np.full(2, number)}[
        kind
    ]


seconds = st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.0005, 0.002, 0.012]), max_size=4)
spots = st.one_of(st.just(-1), st.integers(0, 40))


@st.composite
def sources(draw, endless=False):
    """A function that makes a new source of items, the same each time."""
    delays, error_at = draw(seconds), draw(spots)
    numbers = itertools.count if endless else partial(range, draw(st.integers(0, 60)))
    shape = draw(st.sampled_from(["plain", "array", "view", "list", "dict", "nested"]))

    def stream():
        return paced(numbers() if shape == "plain" else changing(numbers(), shape), delays, error_at)

    if endless:
        return stream
    count = len(numbers())
    length = draw(st.sampled_from(["none", "right", "less", "more", "raises"]))
    claimed = {"none": None, "right": count, "less": count // 2, "more": 2 * count + 1, "raises": None}[length]
    containers = {
        "list": lambda: list(numbers()),
        "range": numbers,
        "tuple": lambda: tuple([k] for k in numbers()),
        "arrays": lambda: np.arange(2.0 * count).reshape(count, 2),
        "dicts": lambda: [{"x": k} for k in numbers()],
        "view": lambda: dict.fromkeys(numbers()).keys(),
    }
    kind = draw(st.sampled_from(["stream", "stream", "claims", "claims", *containers]))
    return {"stream": stream, "claims": lambda: Claims(stream, claimed), **containers}[kind]


functions = st.fixed_dictionaries(
    {
        "delays": seconds.map(tuple),
        "error_at": spots.map(float),
        "changes": st.booleans(),
        "kind": st.sampled_from(["value", "none", "list", "array"]),
    }
)
ways = st.sampled_from(
    [
        {"workers": 2},
        {"workers": 2},
        {"workers": 3},
        {"workers": 2, "isolate": True},
        {"workers": 1},
        {"workers": 2, "executor": "threads"},
        {"executor": "serial"},
    ]
)


def outcome(make):
    """Results up to the end or an error, and the error."""
    found = []
    try:
        found.extend(make())
    except (SourceError, CallError, ValueError) as error:
        return found, (type(error), error.args)
    return found, None


def check(got, expected):
    assert len(got[0]) == len(expected[0])
    for one, other in zip(got[0], expected[0], strict=True):
        assert type(one) is type(other)
        if isinstance(one, np.ndarray):
            assert_same(one, other)
        else:
            assert one == other
    assert got[1] == expected[1]


class Items(RuleBasedStateMachine):
    """Calls that follow each other on the same workers; one of them may be open, its results half taken."""

    @initialize(
        trial=st.sampled_from([None, 0.0, 1.0]),
        worth=st.sampled_from([None, -1.0]),
        patience=st.sampled_from([None, 0.0]),
        least=st.sampled_from([None, 0.0]),
        beside=st.sampled_from([None, -1.0]),
    )
    def choose_timing(self, trial, worth, patience, least, beside):
        """Have the caller's own tasks, the start of workers and the helper thread early, late or as usual."""
        self.patches = contextlib.ExitStack()
        patch = self.patches.enter_context(pytest.MonkeyPatch.context())
        for module, names, chosen in (
            (inline, ("TRIAL_SECONDS", "EARLY_SECONDS", "OWN_SECONDS"), trial),
            (inline, ("COLD_SECONDS", "WARM_SECONDS", "BUSY_SECONDS"), worth),
            (sharing, ("BESIDE_SECONDS",), beside),
            (background, ("HELP_AFTER_SECONDS", "LEAST_HELP_SECONDS"), patience),
            (task_length, ("LEAST_SECONDS",), least),
        ):
            for name in names if chosen is not None else ():
                patch.setattr(module, name, chosen)
        self.open = None

    @rule(source=sources(), kwargs=functions, way=ways, drop_none=st.booleans(), steps=st.booleans())
    def map(self, source, kwargs, way, drop_none, steps):
        """All results of one call."""
        expected = outcome(lambda: (f(item, **kwargs) for item in source()))
        if drop_none:
            expected = [one for one in expected[0] if one is not None], expected[1]
        if not steps and expected[1] is not None:
            expected = [], expected[1]
        call = parallel_imap if steps else parallel_map
        check(outcome(lambda: call(f, source(), kwargs=kwargs, drop_none=drop_none, **way)), expected)

    @rule(source=sources(), other=sources(), way=ways)
    def map_two(self, source, other, way):
        """Two sources in step, of equal lengths or not."""

        def add(a, b):
            return value(a) + value(b)

        expected = outcome(lambda: (add(a, b) for a, b in zip(source(), other(), strict=True)))
        got = outcome(lambda: parallel_map(add, source(), other(), **way))
        if expected[1] is not None:
            assert got[1] is not None
            assert got[1][0] is expected[1][0]
        else:
            check(got, expected)

    @precondition(lambda self: self.open is None)
    @rule(source=st.booleans().flatmap(lambda endless: sources(endless=endless)), kwargs=functions, way=ways)
    def begin(self, source, kwargs, way):
        """A call whose results are taken one by one, perhaps without an end."""
        loop = (f(item, **kwargs) for item in source())
        self.open = parallel_imap(f, source(), kwargs=kwargs, **way), loop

    @precondition(lambda self: self.open is not None)
    @rule(count=st.integers(1, 30))
    def take(self, count):
        """A few of its results, which the user then changes."""
        got, loop = self.open
        expected = outcome(lambda: itertools.islice(loop, count))
        found = outcome(lambda: itertools.islice(got, count))
        check(found, expected)
        for result in found[0]:
            if isinstance(result, list):
                result.append("changed")
        if expected[1] is not None:
            self.open = None

    @precondition(lambda self: self.open is not None)
    @rule()
    def leave(self):
        """Close it."""
        self.open[0].close()
        self.open = None

    def teardown(self):
        if getattr(self, "open", None) is not None:
            self.open[0].close()
        if hasattr(self, "patches"):
            self.patches.close()


TestItems = Items.TestCase
TestItems.settings = hypothesis.settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
