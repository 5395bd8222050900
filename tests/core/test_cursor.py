"""The cursor in shared memory: the element that a worker is computing, readable after its death."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parwise import WorkerDiedError, parallel_apply
from parwise._core.cursor import CURSOR_BYTES, Cursor

from ..support.oracle import assert_same, loop

#: What the function gives for element k: of 8 bytes in several ways, of others, and of more than one type.
RESULTS = {
    "float": float,
    "float64": np.float64,
    "int": int,
    "int64": np.int64,
    "int32": np.int32,
    "bool": lambda k: k % 2 == 0,
    "array": lambda k: np.full(3, k),
    "tuple": lambda k: (k, 1.5),
    "int, later float": lambda k: int(k) if k < 20 else float(k),
    "int beyond 64 bits": lambda k: int(k) + (2**63 if k in (20, 21) else 0),
    "int beyond 64 bits first": lambda k: int(k) + 2**63,
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
@pytest.mark.parametrize("index", [0, 1, 19, 20, 21, 22, 39])
def test_index_of_a_death(result, index):
    def f(k):
        if k == index:
            os.kill(os.getpid(), signal.SIGKILL)
        return result(k)

    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(f, np.arange(40), workers=2, isolate=True)
    assert caught.value.index == index


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_result_and_retries(result, tmp_path, small_tasks):
    """Results of a worker that dies are kept, each once."""

    def f(k):
        if k in (7, 20, 21):
            try:
                os.close(os.open(tmp_path / str(k), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return result(k)

    found = parallel_apply(f, np.arange(40), workers=2, isolate=True, retries=1)
    assert_same(found, loop(result, np.arange(40)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20", "21", "7"]


def test_text_of_each_element(capsys, small_tasks):
    """Output up to the element that raises is shown, and none after it."""

    def f(k):
        print(f"at {k}")
        if k == 31:
            raise ValueError("no")
        return float(k)

    with pytest.raises(ValueError, match="no"):
        parallel_apply(f, np.arange(40), workers=2, isolate=True)
    assert capsys.readouterr().out == "".join(f"at {k}\n" for k in range(32))


def new_cursors(slot_bytes=1024):
    memory = memoryview(bytearray(CURSOR_BYTES))
    outputs = [memoryview(bytearray(slot_bytes)) for _ in range(2)]
    return Cursor(memory, outputs), Cursor(memory, outputs)


@given(lo=st.integers(0, 2**40), count=st.integers(1, 128), found=st.integers(0, 128), slot=st.integers(0, 1))
def test_trail(lo, count, found, slot):
    """The caller reads the index in results of any kind."""
    ours, theirs = new_cursors()
    ours.leave()
    assert theirs.index == -1
    ours.slot = slot
    ours.enter(lo)
    assert theirs.index == lo
    fill_pattern = ours.fill_pattern(count, np.int64)
    assert theirs.index == lo
    found = min(found, count)
    fill_pattern[:found] = np.arange(found)
    assert theirs.index == lo + found
    ours.enter(lo + found + 1)
    assert theirs.index == lo + found + 1
    ours.leave()
    assert theirs.index == -1


def test_no_trail_where_results_have_no_slot():
    ours, _ = new_cursors()
    ours.enter(0)
    assert ours.fill_pattern(3, np.float64) is None
    ours.slot = 0
    assert ours.fill_pattern(129, np.float64) is None
    assert ours.fill_pattern(128, np.float64).shape == (128,)


def test_time_of_each_element():
    """The cursor holds a time only for calls with a timeout."""
    ours, theirs = new_cursors()
    sinces = [(theirs.index, theirs.since) for _ in ours.follow(iter(range(3)), 5, timed=True)]
    assert [index for index, _ in sinces] == [6, 7, 8]
    assert sorted(sinces) == sinces
