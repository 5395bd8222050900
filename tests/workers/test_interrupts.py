"""Ctrl-C at any moment: KeyboardInterrupt at once, no worker left, and the next call is right."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from parwise import parallel_apply
from parwise._system.interpreter import DeferredInterrupt
from parwise._workers.pool.primitives import why_portable

from ..support.functions import ISOLATED
from ..support.internals import default_pool
from ..support.oracle import assert_same
from ..support.scripts import run_script

caller = os.getpid()


def test_interrupts_at_random_moments():
    """Two hundred, in warm and cold calls: KeyboardInterrupt or the right bits; fifty where a worker takes 0.4 s."""
    count = 200 if why_portable() is None else 50
    script = Path(__file__).parents[1] / "support" / "interrupt_storm.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", str(script), str(count), "1"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.stderr == ""
    assert "wrong 0" in done.stdout
    assert int(done.stdout.split()[1]) > count // 5


def test_workers_stuck_in_c_are_gone():
    """An interrupted call leaves no worker, not even one in C code."""
    reader, writer = os.pipe()

    def f(x, fifo):
        with open(fifo, "w") as pipe:
            pipe.write(f"{os.getpid()}\n")
        ctypes.PyDLL(None).sleep(60)

    path = f"/proc/{os.getpid()}/fd/{writer}"
    found = []

    def interrupt():
        with os.fdopen(reader) as pipe:
            found.extend(os.pidfd_open(int(pipe.readline())) for _ in range(2))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        parallel_apply(f, np.arange(2), args=(path,), **ISOLATED)
    thread.join()
    os.close(writer)
    poll = select.poll()
    for fd in found:
        poll.register(fd, select.POLLIN)
    while found:
        events = poll.poll(5000)
        assert events, "a worker outlived the interrupt"
        for fd, _ in events:
            poll.unregister(fd)
            found.remove(fd)
            os.close(fd)
    assert_same(parallel_apply(np.negative, np.arange(9), **ISOLATED), -np.arange(9))


def test_out_holds_whole_elements_after_an_interrupt():
    """`out` holds whole elements only, each of them right."""
    done = run_script(
        """
        import os, signal, numpy as np
        from parwise import parallel_apply
        a = np.random.default_rng(0).random((400, 3000))
        out = np.full(a.shape, np.nan)
        def f(x):
            if x[0] == a[250, 0]:
                os.kill(caller, signal.SIGINT)
            return np.sort(x)
        caller = os.getpid()
        try:
            parallel_apply(f, a, out=out, isolate=True, workers=2)
            print("done")
        except KeyboardInterrupt:
            print("interrupted")
        full = ~np.isnan(out).any(axis=1)
        empty = np.isnan(out).all(axis=1)
        print((full | empty).all(), np.array_equal(out[full], np.sort(a)[full]))
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout in ("interrupted\nTrue True\n", "done\nTrue True\n")


def test_uninterrupted_sections():
    steps = []

    def section():
        with DeferredInterrupt():
            signal.raise_signal(signal.SIGINT)
            steps.append("went on")
            with DeferredInterrupt():
                steps.append("and deeper")
            steps.append("to its end")
        steps.append("not here")

    with pytest.raises(KeyboardInterrupt):
        section()
    assert steps == ["went on", "and deeper", "to its end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["primitives", "dispatcher"])
def test_interrupt_in_an_import(name):
    """It waits for the end of the import: Python itself may leave its lock of all imports taken, and threads hang."""
    done = run_script(
        f"""
        import signal
        import sys
        import numpy as np
        from parwise import parallel_apply

        class Presses:
            def find_spec(self, name, path=None, target=None):
                if name.endswith(".{name}"):
                    found.append(name)
                    signal.raise_signal(signal.SIGINT)

        found = []
        sys.meta_path.insert(0, Presses())
        try:
            parallel_apply(np.negative, np.arange(4.0), workers=2, isolate=True)
        except KeyboardInterrupt:
            print(len(found), found[0] in sys.modules)
        print(parallel_apply(np.negative, np.arange(4.0), workers=2, isolate=True))
        """
    )
    assert (done.stderr, done.stdout) == ("", "1 True\n[-0. -1. -2. -3.]\n")


def test_users_own_handler_stays():
    calls = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))
    try:
        mine = signal.getsignal(signal.SIGINT)
        with DeferredInterrupt():
            signal.raise_signal(signal.SIGINT)
            assert not calls
        assert calls == [signal.SIGINT]
        parallel_apply(lambda x: os.kill(caller, signal.SIGINT) if x == 3 else None, np.arange(9), **ISOLATED)
        assert len(calls) == 2
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupted_pool_is_renewed():
    """The fork server stays; workers of an interrupted call do not."""

    def f(x):
        if x == 0:  # once only: a second signal would be the test's own
            os.kill(caller, signal.SIGINT)
        threading.Event().wait()

    fork_server, before = default_pool().fork_server.pid, {worker.pid for worker in default_pool().workers}
    with pytest.raises(KeyboardInterrupt):
        parallel_apply(f, np.arange(4), **ISOLATED)
    where = parallel_apply(lambda x: os.getpid(), np.arange(4), **ISOLATED)
    assert not before & set(where.tolist())
    assert default_pool().fork_server.pid == fork_server


def test_no_wait_is_endless(monkeypatch):
    """Python may miss a signal until its system call ends, so each does soon."""
    pool = default_pool()
    waits, wait = [], pool.wait
    monkeypatch.setattr(pool, "wait", lambda timeout: [waits.append(timeout), wait(timeout)][1])
    for options in ({}, {"timeout": 1e4}):
        assert_same(parallel_apply(np.negative, np.arange(3.0), workers=2, isolate=True, **options), -np.arange(3.0))
    assert waits
    assert all(timeout is not None and timeout <= 1 for timeout in waits)


def test_interrupt(tmp_path):
    """Ctrl-C in the midst of a call: KeyboardInterrupt, and the next call is right."""
    done = run_script(
        """
        import os, signal, time, numpy as np
        from parwise import parallel_apply
        from parwise._workers.pool.default_pool import default_pool
        def f(x):
            if x == 3:
                os.kill(caller, signal.SIGINT)
                time.sleep(60)
            return x
        caller = os.getpid()
        for _ in range(3):
            start = time.monotonic()
            try:
                parallel_apply(f, np.arange(20), workers=2, isolate=True)
            except KeyboardInterrupt:
                print("interrupted", time.monotonic() - start < 10)
            print(parallel_apply(lambda x: x + 1, np.arange(4), workers=2, isolate=True))
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "interrupted True\n[1 2 3 4]\n" * 3
