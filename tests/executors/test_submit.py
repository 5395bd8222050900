"""`Pool.submit`: an executor of the standard library, its futures, its shutdown, its workers' deaths."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Executor, Future

import numpy as np
import pytest

from parwise import Pool, WorkerDiedError, parallel_map

from ..support.gate import Gate
from ..support.internals import default_pool
from ..support.oracle import assert_same


def test_is_an_executor(pool):
    assert isinstance(pool, Executor)
    future = pool.submit(divmod, 7, 2)
    assert isinstance(future, Future)
    assert future.result() == (3, 1)
    assert pool.submit(lambda *a, **k: (a, k), 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
    assert set(concurrent.futures.wait([pool.submit(abs, -k) for k in range(20)]).done) != set()
    assert sorted(f.result() for f in concurrent.futures.as_completed(pool.submit(abs, -k) for k in range(20))) == list(
        range(20)
    )


def test_runs_in_the_pools_own_workers(pool):
    pids = {pool.submit(os.getpid).result() for _ in range(20)}
    assert pids <= {worker.pid for worker in pool._pool.workers}
    assert not pids & {os.getpid(), *(worker.pid for worker in default_pool().workers)}


def test_exception_has_its_traceback(pool):
    def broken():
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone") as caught:
        pool.apply(broken)
    assert "in broken" in str(caught.value.__cause__)
    assert "_manager" not in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(5)])
def test_exceptions_that_are_none(pool, error):
    def f():
        raise error

    assert type(pool.submit(f).exception()) is type(error)
    assert pool.apply(abs, (-3,)) == 3


def test_apply(pool):
    assert pool.apply(pow, (2, 5)) == 32
    assert pool.apply(int, ("20",), {"base": 3}) == 6


def test_cancel(pool, gate):
    held = [pool.submit(gate, name) for name in "ab"]
    gate.came("a")
    gate.came("b")
    waiting = [pool.submit(abs, k) for k in range(3)]
    assert all(future.running() for future in held)
    assert waiting[1].cancel()
    assert not held[0].cancel()
    gate.open()
    assert [future.result() for future in held] == ["a", "b"]
    assert [waiting[0].result(), waiting[2].result()] == [0, 2]
    with pytest.raises(CancelledError):
        waiting[1].result()


WAITING = {
    "apply": lambda pool: pool.apply(abs, (-8,)),
    "map": lambda pool: list(pool.map(abs, range(100))),
    "imap": lambda pool: list(pool.imap(abs, range(100))),
    "parallel_map": lambda pool: parallel_map(abs, range(100), executor=pool),
    "retries": lambda pool: parallel_map(abs, range(100), executor=pool, retries=1),
    "exception": lambda pool: pool.submit(abs, -8).exception(),
}


@pytest.mark.parametrize("way", WAITING.values(), ids=WAITING)
def test_callbacks_and_what_they_cannot_do(pool, gate, way, tmp_path):
    """A callback that waits for the pool raises, since it runs in the thread that delivers results."""
    seen, done = [], threading.Event()

    def after(future):
        seen.append(future.result())
        seen.append(pool.submit(abs, -8))
        try:
            way(pool)
        except RuntimeError as error:
            seen.append(str(error))
        done.set()

    held = pool.submit(gate)
    gate.came()
    (tmp_path / "other").mkdir()
    other = Gate(tmp_path / "other")
    pool.submit(other, 7).add_done_callback(after)
    other.open()
    assert done.wait(60)
    gate.open()
    assert seen[0] == 7
    assert seen[1].result() == 8
    assert "a callback of one of the pool's own futures cannot wait" in seen[2]
    assert held.result() == "gate"


def test_no_thread_to_be_had(monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with Pool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="can't start"):
                pool.submit(abs, -1)
        assert pool.apply(abs, (-2,)) == 2


def test_shutdown():
    pool = Pool(2)
    future = pool.submit(abs, -1)
    pool.shutdown()
    assert future.result() == 1
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shut down"):
            pool.submit(abs, 1)
        with pytest.raises(RuntimeError, match="shut down"):
            parallel_map(abs, [1, 2], executor=pool)
        with pytest.raises(RuntimeError, match="shut down"):
            pool.imap(abs, [1, 2])
        pool.shutdown()


def test_shutdown_without_waiting(gate):
    pool = Pool(2)
    future = pool.submit(gate)
    pool.shutdown(wait=False)
    assert not future.done()
    gate.open()
    assert future.result() == "gate"


def test_shutdown_said_again(gate):
    """A second shutdown waits after all, and cancels."""
    pool = Pool(1)
    held, waiting = pool.submit(gate), pool.submit(abs, 1)
    gate.came()
    pool.shutdown(wait=False)
    waiting.add_done_callback(lambda _: gate.open())  # as it is cancelled
    pool.shutdown(cancel_futures=True)
    assert held.done()
    assert waiting.cancelled()


@pytest.mark.parametrize("explicit", [False, True])
def test_ctrl_c_while_it_is_left(tmp_path, explicit):
    """Ctrl-C ends the wait for submitted calls, and the calls."""
    gate = Gate(tmp_path)

    def hit():
        gate.came()
        while not pool._closed:
            time.sleep(0.001)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=hit)
    with contextlib.suppress(KeyboardInterrupt), Pool(1) as pool:
        held, waiting = pool.submit(gate), pool.submit(abs, 1)
        thread.start()
        if explicit:
            pool.shutdown()
    thread.join()
    assert "interrupt" in str(held.exception(60))
    assert waiting.cancelled()


def test_shutdown_cancels(gate):
    with Pool(1) as pool:
        held, waiting = pool.submit(gate), pool.submit(abs, 1)
        gate.came()
        waiting.add_done_callback(lambda _: gate.open())  # as it is cancelled
        pool.shutdown(cancel_futures=True)
    assert held.result() == "gate"
    assert waiting.cancelled()


def test_left_by_an_exception(gate):
    pool = Pool(1)
    held, waiting = pool.submit(gate), pool.submit(abs, 1)
    gate.came()
    waiting.add_done_callback(lambda _: gate.open())  # as it is cancelled
    with pytest.raises(ValueError, match="mine"), pool:
        raise ValueError("mine")
    assert held.result() == "gate"
    assert waiting.cancelled()


def test_left_by_ctrl_c(tmp_path):
    """Ctrl-C ends submitted calls, however long they take."""
    gate = Gate(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), Pool(1) as pool:
        held = pool.submit(gate)
        gate.came()
        signal.raise_signal(signal.SIGINT)
    assert "interrupt" in str(held.exception())


def test_unused_and_forgotten():
    with Pool(2):
        pass
    Pool(2).shutdown()
    pool = Pool(2)
    pool.apply(abs, (1,))
    del pool
    gc.collect()


def test_forgotten_with_calls_at_work(gate):
    """Submitted calls of a deleted pool end normally."""
    pool = Pool(1)
    future = pool.submit(gate)
    del pool
    gc.collect()
    gate.open()
    assert future.result() == "gate"


def test_end_of_the_program():
    """Python waits at its exit for calls still at work, and leaves no process."""
    code = """
import parwise, time, sys
def late():
    time.sleep(0.05)
    print("done")
pool = parwise.Pool(1)
pool.submit(late)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# When workers die, and forks.


def test_death_costs_one_call(mortal, gate):
    def die():
        gate()
        os.kill(os.getpid(), signal.SIGKILL)

    dying, others = mortal.submit(die), [mortal.submit(abs, k) for k in range(20)]
    assert [one.result() for one in others] == list(range(20))
    gate.open()
    with pytest.raises(WorkerDiedError, match=r"ended by SIGKILL in a call of .*die") as caught:
        dying.result()
    assert (caught.value.index, caught.value.signal) == (None, signal.SIGKILL)
    assert "workers=1" not in str(caught.value)
    assert mortal.apply(abs, (-3,)) == 3


def test_results_that_cannot_be_sent(mortal):
    with pytest.raises(TypeError, match="cannot pickle"):
        mortal.apply(threading.Lock)
    with pytest.raises(TypeError, match="cannot be sent"):
        mortal.submit(abs, threading.Lock())
    assert mortal.apply(abs, (-3,)) == 3


class Here:
    """Can be rebuilt in workers only."""

    def __reduce__(self):
        return rebuild, (os.getpid(),)


def rebuild(pid):
    if os.getpid() != pid:
        raise OSError("not here")


def test_result_that_cannot_be_rebuilt_costs_one_call(mortal, gate):
    held, lost = mortal.submit(gate), mortal.submit(Here)
    assert "not here" in str(lost.exception())
    assert [mortal.submit(abs, -k).result() for k in range(3)] == [0, 1, 2]
    gate.open()
    assert held.result() == "gate"
    with pytest.raises(OSError, match="not here") as caught:
        parallel_map(lambda k: Here() if k == 3 else k, range(9), executor=mortal, isolate=True)
    assert "while reading the results of these elements" in caught.value.__notes__


def test_large_arguments_and_results(mortal):
    """Arguments and results may be larger than a slot."""
    large = np.random.default_rng(0).standard_normal((1000, 1000))
    assert_same(mortal.apply(np.negative, (large,)), -large)
    assert_same(mortal.apply(np.transpose, (large,)), large.T)


def test_text(mortal, capsys):
    """Text that submitted calls print is replayed in the caller."""
    mortal.apply(print, ("hello",))
    mortal.apply(print, ("x" * 100_000,))
    list(mortal.map(print, range(3), chunksize=3))
    assert capsys.readouterr().out == "hello\n" + "x" * 100_000 + "\n" + "0\n1\n2\n"


def test_state_that_holds_functions_of_a_script(mortal):
    # Each worker gets the state that a call was submitted in: not all have had the one before.
    def divide(x):
        return np.float64(x) / np.float64(0), str(np.array([0.5]))

    def show(number):
        return f"<{number}>"

    for _ in range(3):
        with np.errstate(all="call", call=lambda kind, flag: None), np.printoptions(formatter={"float": show}):
            assert [mortal.submit(divide, 1).result() for _ in range(4)] == [(np.inf, "[<0.5>]")] * 4
        with np.errstate(all="ignore"):
            assert mortal.submit(divide, 1).result() == (np.inf, "[0.5]")


def test_in_a_forked_child(pool):
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                pool.submit(abs, 1)
            except RuntimeError as error:
                code = 0 if "forked" in str(error) else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert pool.apply(abs, (-1,)) == 1


def test_forgotten_in_a_forked_child():
    """The pool's lock is held by a thread that the fork did not copy."""
    pool = Pool(1)
    pool.apply(abs, (1,))
    while pool._manager._thread is not None:
        time.sleep(0.001)
    with pool._pool.lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            del pool
            gc.collect()
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    pool.shutdown()
