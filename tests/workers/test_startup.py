"""How worker processes start, which settings they take over from the caller, and how they end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from parwise import ParwiseError, parallel_apply
from parwise._executors.processes import runner as processes
from parwise._workers.pool import fork_server_start as fork_server
from parwise._workers.pool.primitives import why_portable
from parwise.errors import NoWorkersError

from ..support.functions import ISOLATED, worker_pids
from ..support.internals import default_pool
from ..support.scripts import run_script


def test_at_the_end_of_the_interpreter():
    done = run_script(
        """
        import atexit, threading, numpy as np
        from parwise import parallel_apply
        def call(name, **options):
            try:
                print(name, parallel_apply(np.sum, np.ones((3, 2)), **options).tolist(), flush=True)
            except Exception as error:
                print(name, type(error).__name__, flush=True)
        class Late:
            def __del__(self):
                call("del")
        late = Late()
        atexit.register(call, "first registered", isolate=True)
        call("here", isolate=True)
        atexit.register(call, "last registered", isolate=True)
        threading.Thread(target=lambda: (threading.main_thread().join(), call("thread", isolate=True))).start()
        """,
        "-",
        env={**os.environ, "PYTHONDEVMODE": "1"},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    told = dict(line.rsplit(" [", 1) if "[" in line else line.rsplit(" ", 1) for line in done.stdout.splitlines())
    for name in ("here", "thread", "first registered", "last registered", "del"):
        assert told[name] in ("2.0, 2.0, 2.0]", "ParwiseError", "NoWorkersError", "RuntimeError"), told
    assert told["here"] == told["last registered"] == "2.0, 2.0, 2.0]"


def test_signals_that_the_caller_ignores_or_blocks():
    """Functions get them all the same: an alarm, or the exit code of a program."""
    done = run_script(
        """
        import os, signal, subprocess
        from parwise import parallel_map
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        def f(k):
            assert signal.getsignal(signal.SIGCHLD) == signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL
            return signal.pthread_sigmask(signal.SIG_BLOCK, []), subprocess.run(["false"]).returncode
        print(parallel_map(f, range(2), isolate=True, workers=2))
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "[(set(), 1), (set(), 1)]\n"


TOO_LONG = r"could not be started .*; shorten the environment variables and sys.path"


def test_environment_too_long_for_a_new_process(monkeypatch):
    """Linux takes 128 kB for one variable."""
    default_pool().stop()
    monkeypatch.setenv("LONG", "x" * 2**18)
    with pytest.raises(NoWorkersError, match=TOO_LONG):
        parallel_apply(np.sum, np.ones((3, 2)), **ISOLATED)
    monkeypatch.delenv("LONG")
    assert parallel_apply(np.sum, np.ones((3, 2)), **ISOLATED).tolist() == [2.0, 2.0, 2.0]


def test_path_too_long_for_a_new_process(monkeypatch):
    """It is on the command line of a fork server; portable workers get it by their connection."""
    default_pool().stop()
    monkeypatch.setattr(sys, "path", [*sys.path, *(f"/nowhere/{k:01000}" for k in range(300))])
    with contextlib.nullcontext() if why_portable() else pytest.raises(NoWorkersError, match=TOO_LONG):
        assert parallel_apply(np.sum, np.ones((3, 2)), **ISOLATED).tolist() == [2.0, 2.0, 2.0]
    monkeypatch.undo()
    default_pool().stop()
    assert parallel_apply(np.sum, np.ones((3, 2)), **ISOLATED).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("way", ["file", "standard input"])
def test_development_mode_is_silent(way, tmp_path):
    """Warnings as errors, from the first import to the end; the top level runs once."""
    code = """
import numpy as np
from parwise import parallel_apply, WorkerDiedError
import os
print("top level")
def f(x):
    return x.sum()
a = np.ones((300, 7))
for options in ({}, {"isolate": True}, {"executor": "threads"}, {"timeout": 30.0}, {"workers": 1}):
    assert parallel_apply(f, a, **options).tolist() == [7.0] * 300
try:
    parallel_apply(lambda x: os._exit(3), a, isolate=True)
except WorkerDiedError:
    print("died")
assert parallel_apply(f, a, isolate=True, retries=1).tolist() == [7.0] * 300
"""
    environ = {**os.environ, "PYTHONDEVMODE": "1"}
    if way == "file":
        script = tmp_path / "script.py"
        script.write_text(code)
        done = run_script("", str(script), env=environ)
    else:
        done = run_script(code, "-", env=environ)
    assert done.stderr == ""
    assert done.stdout == "top level\ndied\n"
    assert done.returncode == 0


def test_small_call_starts_no_process():
    done = run_script(
        """
        import os, numpy as np
        from parwise import parallel_apply
        from parwise._workers.pool.default_pool import default_pool
        assert parallel_apply(lambda x: x + 1, np.arange(100.0)).sum() == 5050
        assert not default_pool().workers
        with open("/proc/self/task/%d/children" % os.getpid()) as children:
            print(children.read() == "")
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "True\n"


def test_workers_are_kept_between_calls():
    first = worker_pids(**ISOLATED)
    assert len(first) == 2
    assert os.getpid() not in first
    assert worker_pids(**ISOLATED) == first


def test_number_of_workers():
    assert len(worker_pids(isolate=True, workers=3)) == 3
    assert len(worker_pids(isolate=True, workers=1)) == 1


def test_script_without_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from parwise import parallel_apply
            print("top level")
            scale = 3.0
            class Point:
                def __init__(self, x): self.x = x
                def __eq__(self, other): return type(self) is type(other) and self.x == other.x
            def f(x): return x * scale
            assert parallel_apply(f, np.arange(10.0), isolate=True).tolist() == [3.0 * k for k in range(10)]
            points = parallel_apply(Point, np.arange(3), isolate=True)
            assert type(points[0]) is Point, type(points[0])
            assert (points == [Point(0), Point(1), Point(2)]).all()
            """
        )
    )
    done = run_script("", str(script), env={**os.environ, "PYTHONDEVMODE": "1"})
    assert done.stderr == ""
    assert done.stdout == "top level\n"


def test_modules_of_the_working_directory_stay_out(tmp_path):
    """A random.py where the user happens to be must not replace the standard library's."""
    (tmp_path / "random.py").write_text("raise RuntimeError('wrong module')")
    (tmp_path / "main.py").write_text(
        "import sys; sys.path.pop(0); import numpy as np; from parwise import parallel_apply\n"
        "print(parallel_apply(np.sum, np.ones((3, 2)), isolate=True))"
    )
    done = run_script("", "main.py", cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout == "[2. 2. 2.]\n"


def test_surroundings_are_the_callers(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("VALUE = 42\ndef f(x): return x + VALUE")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PARWISE_TEST", "yes")
    monkeypatch.chdir(tmp_path)
    import late_module

    assert parallel_apply(late_module.f, np.arange(4), **ISOLATED).tolist() == [42, 43, 44, 45]
    got = parallel_apply(lambda x: f"{os.environ['PARWISE_TEST']} {os.getcwd()}", np.arange(2), **ISOLATED)
    assert got.tolist() == [f"yes {tmp_path}"] * 2
    monkeypatch.delenv("PARWISE_TEST")
    assert not parallel_apply(lambda x: "PARWISE_TEST" in os.environ, np.arange(2), **ISOLATED).any()
    threads = {name: os.environ.get(name) for name in fork_server.ONE_THREAD}
    got = parallel_apply(lambda x: repr({k: os.environ.get(k) for k in threads}), np.arange(2), **ISOLATED)
    assert got[0] == repr(threads)


def test_forked_child_of_the_user():
    """A child of the user's own fork makes workers of its own."""
    worker_pids(**ISOLATED)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            got = parallel_apply(np.sort, np.ones((9, 3)), **ISOLATED)
            os.write(writer, b"right" if got.sum() == 27 else b"wrong")
            default_pool().stop()
        except BaseException as error:
            os.write(writer, repr(error).encode()[:500])
        finally:
            os._exit(0)
    os.close(writer)
    try:
        assert os.read(reader, 500) == b"right"
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    assert len(worker_pids(**ISOLATED)) == 2


def test_dead_fork_server():
    worker_pids(**ISOLATED)
    pool = default_pool()
    os.kill(pool.fork_server.pid, signal.SIGKILL)
    watched = [worker.pidfd for worker in pool.workers]
    poll = select.poll()
    for fd in watched:
        poll.register(fd, select.POLLIN)
    while watched:  # its workers go with it
        for fd, _ in poll.poll(5000):
            poll.unregister(fd)
            watched.remove(fd)
    assert len(worker_pids(**ISOLATED)) == 2


def test_parent_killed_takes_workers_along():
    """Workers end with a killed caller, also one that is stuck in C code."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, time, ctypes, numpy as np; from parwise import parallel_apply\n"
            "def f(x):\n    os.write(1, b'%d\\n' % os.getpid()); ctypes.PyDLL(None).sleep(60)\n"
            "parallel_apply(f, np.arange(2), workers=2, isolate=True)",
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    fds = [os.pidfd_open(int(process.stdout.readline())) for _ in range(2)]
    process.kill()
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    gone = set()
    while len(gone) < 2:
        events = poll.poll(5000)
        assert events, "a worker outlived its caller"
        for fd, _ in events:
            gone.add(fd)
            poll.unregister(fd)
    for fd in fds:
        os.close(fd)
    process.wait()
    process.stdout.close()


def test_missing_interpreter(monkeypatch, small_pool):
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)  # which names one too
    with pytest.raises(ParwiseError, match="sys.executable"):
        processes_run_with(small_pool, monkeypatch)


def processes_run_with(pool, monkeypatch):
    monkeypatch.setattr(processes, "default_pool", lambda: pool)
    return parallel_apply(np.sum, np.ones((3, 3)), **ISOLATED)


def test_worker_that_died_idle_is_replaced():
    first = worker_pids(**ISOLATED)
    worker = default_pool().workers[1]
    pidfd = os.pidfd_open(worker.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    os.kill(worker.pid, signal.SIGKILL)
    assert poll.poll(5000)
    os.close(pidfd)
    second = worker_pids(**ISOLATED)
    assert len(second) == 2
    assert first != second


def test_stop_does_not_wait_for_the_users_children(small_pool):
    """A forked child holds a copy of every socket."""
    small_pool.start(1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent is through
        os._exit(0)
    os.close(reader)
    small_pool.stop()
    os.close(writer)
    os.waitpid(child, 0)


def test_interrupted_start_is_made_good(monkeypatch, small_pool):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_spawn", interrupt)
    monkeypatch.setattr(subprocess.Popen, "__init__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        processes_run_with(small_pool, monkeypatch)
    monkeypatch.undo()
    assert processes_run_with(small_pool, monkeypatch).tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    "options", ["-I -OO -b -X dev", "-E -s -W ignore::UserWarning -q", "-X utf8=1 -X int_max_str_digits=5000", "-P -bb"]
)
def test_workers_have_the_callers_options(options):
    """Workers get the caller's interpreter options, but never the working directory on their path."""
    done = run_script(
        """
        import sys, numpy as np
        from parwise import parallel_apply
        def f(x):
            flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if name[:1] != "_"}
            return repr(({**flags, "safe_path": True, "count": 0, "index": 0}, sys.warnoptions, sys._xoptions))
        print(set(parallel_apply(f, np.arange(3), workers=2, isolate=True)) == {f(0)})
        """,
        *options.split(),
        "-",
    )
    assert done.stdout == "True\n", done.stderr
