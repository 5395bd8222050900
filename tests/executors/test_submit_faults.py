"""Submitted calls: a fault of one call, callback, worker or output costs no other call anything."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import signal
import sys
import threading
import time
import warnings

import pytest

from parwise import Pool, WorkerDiedError
from parwise._executors.submit import work_queue
from parwise._workers.pool import forked_pool
from parwise._workers.worker import calls
from parwise._workers.worker import main as worker_main
from parwise.errors import NoWorkersError

from .test_batches import held_back, short


@contextlib.contextmanager
def single(gate):
    """A pool of one worker, which is at a call; the gate lets it go on."""
    with Pool(1) as pool, contextlib.ExitStack() as end:
        end.callback(gate.open)  # the pool waits for the call
        yield pool, pool.submit(gate)


def test_a_cancelled_call_hides_no_reload(tmp_path, monkeypatch):
    """The one behind it gets new workers, as a module was reloaded between the two."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "reloaded_before_a_call.py").write_text("def value(): return 1\n")
    module = importlib.import_module("reloaded_before_a_call")
    with Pool(1) as pool:
        assert pool.submit(lambda: module.value()).result(60) == 1
        with held_back(pool):
            cancelled = pool.submit(lambda: module.value())
            (tmp_path / "reloaded_before_a_call.py").write_text("def value(): return 22\n")
            importlib.reload(module)
            behind = pool.submit(lambda: module.value())
            assert cancelled.cancel()
        assert behind.result(60) == 22
    del sys.modules["reloaded_before_a_call"]


# Results


def _end_after_a_copy():
    """Have this worker end as soon as it has copied results to their slot, before it tells of them."""
    copy_in = worker_main.copy_in

    def copy_and_end(*arguments):
        copy_in(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    worker_main.copy_in = copy_and_end
    calls.BATCH_SECONDS = 60.0  # however busy the machine, each batch is made to its end


def _noted(folder, k, size):
    with open(folder / str(k), "a") as file:
        file.write("x")
    return b"x" * size


@pytest.mark.parametrize("sizes", [[1, 1, 1, 20_000, 1, 1, 1, 1], [9000] * 8], ids=["one of 20 kB", "all of 9 kB"])
def test_results_are_not_copied_over_their_log(tmp_path, sizes, monkeypatch):
    """Of a worker that ends then no finished call is lost, nor made again."""
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(work_queue, "BATCH_SECONDS", 60.0)  # the first batch is of four calls
    with Pool(1) as pool:
        short(pool)
        pool.submit(_end_after_a_copy).result(60)
        short(pool)
        with held_back(pool):
            futures = [pool.submit(_noted, tmp_path / "made", k, size) for k, size in enumerate(sizes)]
        assert [len(one.result(60)) for one in futures] == sizes
    assert [(tmp_path / "made" / str(k)).read_text() for k in range(8)] == ["x"] * 8


# Callbacks


def _exit(future):
    sys.exit("a callback")


def test_callbacks_that_exit_end_nothing(gate, caplog):
    with single(gate) as (pool, held):
        gate.came()
        futures = [held, *(pool.submit(abs, -k) for k in range(4))]
        for one in futures[:2]:
            one.add_done_callback(_exit)
        gate.open()
        assert [one.result(60) for one in futures] == ["gate", 0, 1, 2, 3]
        assert pool.submit(abs, -5).result(60) == 5
    assert len(caplog.records) == 2
    assert "raised SystemExit" in caplog.text
    caplog.clear()


def test_cancelled_calls_whose_callbacks_exit(gate):
    with single(gate) as (pool, held):
        gate.came()
        seen = []
        with held_back(pool):
            futures = [pool.submit(abs, -k) for k in range(4)]
            futures[0].add_done_callback(_exit)
            futures[3].add_done_callback(seen.append)
            with pytest.raises(SystemExit, match="a callback"):
                pool.shutdown(wait=False, cancel_futures=True)
        assert [one.cancelled() for one in futures] == [True] * 4
        assert seen == futures[3:]
        gate.open()
        assert held.result(60) == "gate"
        with pytest.raises(RuntimeError, match="shut down"):
            pool.submit(abs, -1)


def test_exit_in_a_nested_call():
    def nested():
        with Pool(1) as inner:
            return repr(inner.submit(sys.exit, 3).exception())

    with Pool(1) as pool:
        assert pool.submit(nested).result(60) == "SystemExit(3)"
        assert repr(pool.submit(sys.exit, 3).exception(60)) == "SystemExit(3)"


@pytest.mark.parametrize("ask", [lambda future: future.result(), lambda future: future.exception()])
def test_a_result_is_not_waited_for_in_a_forked_child(gate, ask):
    with single(gate) as (_, held):
        gate.came()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            code = 1
            with contextlib.suppress(BaseException):
                try:
                    ask(held)
                except RuntimeError as error:
                    code = 0 if "forked" in str(error) else 2
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Output


def test_a_warning_that_becomes_an_error_is_that_of_its_call(gate):
    def warn():
        gate()
        warnings.warn("from the call", UserWarning, stacklevel=1)

    with warnings.catch_warnings(), single(gate) as (pool, _):
        warnings.simplefilter("default")
        warning, others = pool.submit(warn), [pool.submit(abs, -k) for k in range(4)]
        warnings.simplefilter("error")  # of the caller's moment, in which it is shown
        gate.open()
        assert [one.result(60) for one in others] == [0, 1, 2, 3]
        with pytest.raises(UserWarning, match="from the call") as caught:
            warning.result(60)
        assert "while the output of a call of" in caught.value.__notes__[0]


def test_text_for_a_closed_stream_costs_its_call(gate, monkeypatch):
    with monkeypatch.context() as patch, single(gate) as (pool, _):
        stream = io.StringIO()
        patch.setattr(sys, "stdout", stream)
        printing, others = pool.submit(print, "text"), [pool.submit(abs, -k) for k in range(4)]
        stream.close()
        gate.open()
        assert [one.result(60) for one in others] == [0, 1, 2, 3]
        with pytest.raises(ValueError, match="closed file"):
            printing.result(60)


def test_text_of_a_thread_that_goes_on_after_its_call_costs_nothing(gate, monkeypatch):
    """It belongs to no call: it is told as what ends a thread is."""
    told = []

    def print_later():
        def run():
            gate()
            print("later")

        threading.Thread(target=run, daemon=True).start()

    with monkeypatch.context() as patch, Pool(1) as pool:
        assert pool.submit(print_later).result(60) is None
        patch.setattr(threading, "excepthook", told.append)
        stream = io.StringIO()
        patch.setattr(sys, "stdout", stream)
        stream.close()
        gate.came()
        gate.open()
        while not told:
            assert pool.submit(abs, -1).result(60) == 1
    assert "closed file" in str(told[0].exc_value)


# Workers


def wait_until(true):
    while not true():
        time.sleep(0.001)


def test_the_death_of_an_idle_worker_costs_nothing(gate):
    """It has computed nothing yet, while another one is at a call."""
    with Pool(2) as pool, contextlib.ExitStack() as end:
        end.callback(gate.open)
        held = pool.submit(gate)
        gate.came()
        workers = pool._pool.workers
        wait_until(lambda: len(workers) == 2 and all(one.slots.cursor.loaded for one in workers))
        idle = next(one for one in workers if one.at is None)
        os.kill(idle.pid, signal.SIGKILL)
        wait_until(lambda: idle not in pool._pool.workers)
        gate.open()
        assert held.result(60) == "gate"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_fork_server_that_cannot_be_replaced(gate, monkeypatch, workers):
    """It has ended, and workers with it; each call gets a result or says why it has none."""

    def refuse(*arguments):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    with Pool(workers) as pool, contextlib.ExitStack() as end:
        end.callback(gate.open)
        futures = [pool.submit(gate, f"call {k}") for k in range(workers)]
        for k in range(workers):
            gate.came(f"call {k}")
        futures += [pool.submit(abs, -k) for k in range(3)]
        monkeypatch.setattr(forked_pool, "ForkServerHandle", refuse)
        os.kill(pool._pool.fork_server.pid, signal.SIGKILL)
        errors = [one.exception(60) for one in futures]
        assert {type(one) for one in errors} <= {NoWorkersError, WorkerDiedError}
        assert sum(type(one) is WorkerDiedError for one in errors) <= workers
        assert "Resource temporarily unavailable" in str(errors[-1])
        wait_until(lambda: "parwise-manager" not in {one.name for one in threading.enumerate()})
