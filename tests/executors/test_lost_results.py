"""What goes wrong at one element, or in a worker that has none, costs no result that is there."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from parwise import Pool, WorkerDiedError, parallel_apply, parallel_imap, parallel_map

WAYS = {
    "default": {},
    "isolated": {"isolate": True, "workers": 2},
    "threads": {"executor": "threads", "workers": 2},
    "serial": {"executor": "serial"},
}
way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def results_of(stream):
    """The results before an exception, and that."""
    found = []
    try:
        found.extend(stream)
    except BaseException as error:
        return found, error
    return found, None


@way
@pytest.mark.parametrize("kind", [GeneratorExit, SystemExit, ValueError])
def test_exceptions_that_end_a_generator(way, kind):
    """Raised by the function, not by who leaves the results."""

    def f(k):
        if k == 5:
            raise kind("of the function")
        return k

    found, error = results_of(parallel_imap(f, range(10), **way))
    assert found == list(range(5))
    assert type(error) is kind
    assert sorted(parallel_imap(abs, range(10), ordered=False, **way)) == list(range(10))


@way
@pytest.mark.parametrize("kind", [GeneratorExit, SystemExit, ValueError])
def test_exceptions_of_the_items_come_after_the_results_before_them(way, kind):
    def items():
        yield from range(5)
        raise kind("of the items")

    found, error = results_of(parallel_imap(float, items(), **way))
    assert found == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert type(error) is kind


def test_results_that_are_left():
    results = parallel_imap(abs, range(100), isolate=True)
    assert next(results) == 0
    results.close()
    assert list(results) == []


def test_the_death_of_an_idle_worker_costs_nothing(gate):
    """It has loaded the function and got no element, while another one is at the only one."""
    found = []
    with Pool(2) as pool:
        how = {"executor": pool, "isolate": True, "retries": 0, "workers": 2}
        thread = threading.Thread(target=lambda: found.append(results_of(parallel_imap(gate, ["only"], **how))))
        thread.start()
        gate.came("only")
        workers = pool._pool.workers
        deadline = time.monotonic() + 30
        while not (len(workers) == 2 and all(one.slots.cursor.loaded for one in workers)):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        idle = next(one for one in workers if one.at is None)
        os.kill(idle.pid, signal.SIGKILL)
        while idle in workers:
            time.sleep(0.001)
        gate.open()
        thread.join(60)
    assert found == [(["only"], None)]


def test_a_worker_that_loads_is_charged_for_its_end():
    class EndsWhereItIsLoaded:
        def __call__(self, k):
            return k

        def __setstate__(self, state):
            os._exit(3)

        def __getstate__(self):
            return {"state": np.ones(3)}

    with pytest.raises(WorkerDiedError, match="with exit code 3"):
        parallel_map(EndsWhereItIsLoaded(), range(10), isolate=True, workers=2)
    assert parallel_map(abs, range(3), isolate=True) == [0, 1, 2]


class Refuses:
    """A stream that refuses some text, as one that is closed refuses all."""

    def __init__(self, text):
        self.text, self.written = text, ""

    def write(self, text):
        if self.text in text:
            raise ValueError(f"no {text.strip()}")
        self.written += text


def say(k):
    print(f"<{k}>", f"[{k}]", sep="\n")
    return k


@way
def test_output_that_is_refused_is_an_exception_of_its_element(way, monkeypatch):
    monkeypatch.setattr("sys.stdout", Refuses("<6>"))
    found, error = results_of(parallel_imap(say, range(10), **way))
    assert type(error) is ValueError
    assert found == list(range(len(found)))
    if "threads" not in way.values():  # where the text of a task is one, and is shown a moment later
        assert found == [0, 1, 2, 3, 4, 5]
        assert error.__notes__[0].startswith("in item 6: 6")
        assert sys.stdout.written == "".join(f"<{k}>\n[{k}]\n" for k in found)
    with pytest.raises(ValueError, match="no <") as caught:
        parallel_apply(say, np.arange(10), **way)
    assert caught.value.__notes__[0].startswith("in element ")


def test_bytes_of_the_last_element_that_are_refused(monkeypatch):
    """They leave their buffer when it has returned."""

    def f(k):
        sys.stdout.buffer.write(b"<%d>" % k)
        return k

    monkeypatch.setattr("sys.stdout", Refuses("<9>"))
    for array, axis, name in (
        (np.arange(10), 0, "in element 9"),
        (np.arange(10).reshape(2, 5), (0, 1), "in element (1, 4)"),
    ):
        with pytest.raises(ValueError, match="no <") as caught:
            parallel_apply(f, array, axis=axis, isolate=True, workers=2)
        assert caught.value.__notes__[0].startswith(name)


@pytest.mark.parametrize("way", [WAYS["isolated"], WAYS["serial"]], ids=["isolated", "serial"])
def test_output_that_is_refused_before_its_function_raises(way, monkeypatch):
    def f(k):
        print(f"<{k}>")
        if k == 6:
            raise KeyError(k)
        return k

    monkeypatch.setattr("sys.stdout", Refuses("<6>"))
    found, error = results_of(parallel_imap(f, range(10), **way))
    assert found == [0, 1, 2, 3, 4, 5]
    assert type(error) is ValueError
