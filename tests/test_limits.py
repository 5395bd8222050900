"""Limits of memory and files, other programs, threads and the interpreter's end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from parwise import parallel_apply
from parwise._executors import faults, processes
from parwise._system.limits import _group_limits, memory_limit, own_bytes
from parwise._workers import remote, shared_memory, worker_pool
from parwise._workers.default_pool import default_pool
from parwise._workers.shared_memory import fitting_slot_bytes

from .oracle import assert_same, loop
from .scripts import run_script

ISOLATED = {"isolate": True, "workers": 2}


def test_files_of_limited_size():
    """Shared memory counts among files: RLIMIT_FSIZE holds for it."""
    done = run_script(
        """
        import resource, numpy as np
        from parwise import parallel_apply, ParwiseError
        from parwise._workers.default_pool import default_pool
        big = np.ones(100_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        a = np.random.default_rng(0).random((300, 1000))
        for _ in range(2):
            print(np.array_equal(parallel_apply(np.sort, a, isolate=True), np.sort(a)))
        print(0 < default_pool().slot_bytes < 60_000)
        try:
            parallel_apply(lambda x: x.sum() + big[0], a, isolate=True)
        except ParwiseError as error:
            print(error)
        print(parallel_apply(np.sum, np.ones((3, 2)), isolate=True))
        """,
        "-",
    )
    assert done.stderr == ""
    told = done.stdout.splitlines()
    assert told[:3] == ["True"] * 3
    assert "take 80" in told[3]
    assert "shared memory may have 300000 (ulimit -f" in told[3]
    assert told[4] == "[2. 2. 2.]"


def test_no_files_at_all():
    done = run_script(
        """
        import resource, numpy as np
        from parwise import parallel_apply, ParwiseError
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        try:
            parallel_apply(np.sum, np.ones((3, 2)), isolate=True)
        except ParwiseError as error:
            print(error)
        print(parallel_apply(np.sum, np.ones((3, 2))), parallel_apply(np.sum, np.ones((3, 2)), executor="threads"))
        """,
        "-",
    )
    assert done.stderr == ""
    assert "no room for shared memory: 9000 bytes" in done.stdout
    assert "executor='threads'" in done.stdout
    assert done.stdout.splitlines()[-1] == "[2. 2. 2.] [2. 2. 2.]"


def test_slots_take_a_small_part_of_the_memory(monkeypatch):
    monkeypatch.setattr(shared_memory, "memory_limit", lambda: 2**25)
    monkeypatch.setattr(shared_memory, "cpu_count", lambda: 4)
    assert 0 < fitting_slot_bytes() * 5 * 4 <= 2**25 // 16
    monkeypatch.setattr(shared_memory, "memory_limit", lambda: 2**40)
    assert fitting_slot_bytes() == 2**20


def test_memory_limit_of_groups(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("1000000\n")
    (tmp_path / "a" / "b" / "memory.max").write_text("max\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    assert list(_group_limits(tmp_path, membership)) == [1_000_000]
    (tmp_path / "memory" / "c").mkdir(parents=True)
    (tmp_path / "memory" / "c" / "memory.limit_in_bytes").write_text("77\n")
    membership.write_text("3:cpu:/x\n4:memory:/c\n")
    assert list(_group_limits(tmp_path, membership)) == [77]
    assert list(_group_limits(tmp_path, tmp_path / "none")) == []
    assert memory_limit() > 2**20


def test_nothing_lives_in_dev_shm():
    def f(x):
        with open("/proc/self/maps") as file:
            lines = file.readlines()
        return any("/dev/shm" in line for line in lines), any("/memfd:parwise" in line for line in lines)

    shm, memfd = parallel_apply(f, np.arange(4), **ISOLATED)
    assert not shm.any()
    assert memfd.all()
    assert f(0)[1]


def test_tiny_dev_shm(tmp_path):
    """64 kB of /dev/shm, as in some containers, change nothing."""
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np; from parwise import parallel_apply\n"
        "a = np.random.default_rng(0).random((50, 20_000))\n"
        "big = np.ones(500_000)\n"
        "got = parallel_apply(lambda x: np.sort(x) * big[0], a, isolate=True)\n"
        "print(np.array_equal(got, np.sort(a)))\n"
    )
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    own = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run([*own, mount], capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    done = subprocess.run(
        [*own, f'{mount} && exec "$0" -W error "$1"', sys.executable, str(script)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("True\n", "")


def hoard(megabytes):
    """A function that keeps so much more memory each time."""
    kept = []

    def f(x):
        kept.append(np.ones(megabytes * 2**17))
        return os.getpid()

    return f


def test_worker_that_grows_is_renewed(monkeypatch):
    monkeypatch.setattr(faults, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(faults, "GROWTH_BYTES", 40 * 2**20)
    where = parallel_apply(hoard(4), np.arange(100), **ISOLATED)
    assert len(where) == 100
    assert len(set(where.tolist())) > 2  # a worker goes between two tasks
    assert max(map(where.tolist().count, set(where.tolist()))) < 80
    a = np.arange(100.0)
    assert_same(parallel_apply(np.sqrt, a, **ISOLATED), np.sqrt(a))


def test_worker_that_does_not_grow_stays(monkeypatch):
    monkeypatch.setattr(faults, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(faults, "GROWTH_BYTES", 40 * 2**20)

    def f(x):
        np.ones(2**20).sum()
        time.sleep(0.001)
        return os.getpid()

    assert len(set(parallel_apply(f, np.arange(100), **ISOLATED).tolist())) == 2


def test_worker_that_is_large_between_calls_is_renewed(monkeypatch):
    monkeypatch.setattr(worker_pool, "LOOK_SECONDS", 0.0)
    before = set(parallel_apply(hoard(1), np.arange(60), **ISOLATED).tolist())
    assert set(parallel_apply(lambda x: os.getpid(), np.arange(60), **ISOLATED).tolist()) <= before | {
        link.pid for link in default_pool().workers
    }
    monkeypatch.setattr(worker_pool, "IDLE_BYTES", 1)
    after = set(parallel_apply(lambda x: (time.sleep(0.002), os.getpid())[1], np.arange(60), **ISOLATED).tolist())
    assert not before & after
    assert own_bytes(2**22 + 1) == 0
    assert own_bytes(os.getpid()) > 2**20


def test_large_function_is_let_go():
    big = np.ones(4_000_000)
    parallel_apply(lambda x: x + big[0], np.arange(50.0), **ISOLATED)
    deadline = time.monotonic() + 10
    while any(private_bytes(link.pid) >= big.nbytes for link in default_pool().workers):
        assert time.monotonic() < deadline, "a worker keeps the function of a call that is over"
        os.sched_yield()
    assert_same(parallel_apply(np.negative, np.arange(9.0), **ISOLATED), -np.arange(9.0))


def private_bytes(pid):
    """The largest private mapping of parwise's shared memory in another process."""
    sizes = [0]
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, flags, *_ = line.split()
        if "memfd:parwise" in line and flags.endswith("p"):
            start, end = (int(one, 16) for one in span.split("-"))
            sizes.append(end - start)
    return max(sizes)


def test_programs_of_the_function_inherit_nothing():
    def f(x):
        reader, writer = os.pipe()
        code = f"import os; os.write({writer}, ' '.join(sorted(os.listdir('/proc/self/fd'))).encode())"
        pid = os.posix_spawn(
            sys.executable, [sys.executable, "-S", "-c", code], os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, writer, writer)],
        )  # fmt: skip
        os.waitpid(pid, 0)
        with os.fdopen(reader) as pipe:
            os.close(writer)
            return f"{pipe.read()} {writer}"

    for told in parallel_apply(f, np.arange(2), **ISOLATED):
        *found, writer = told.split()
        # Standard streams, the pipe, and the listing itself.
        assert set(found) - {"0", "1", "2", writer} <= {min(str(k) for k in range(3, 9) if str(k) != writer)}, told


def test_nobody_else_can_speak():
    """Sockets have no name to connect to, shared memory none to open."""
    for link in default_pool().workers:
        assert link.channel.sock.getsockname() == ""
        assert link.channel.sock.getpeername() == ""
        assert not os.get_inheritable(link.channel.fileno())
        assert not os.get_inheritable(link.pidfd)


def test_many_threads_isolated():
    a = np.random.default_rng(5).standard_normal((50, 50))
    want = loop(np.sort, a)
    wrong = []

    def call():
        for _ in range(3):
            got = parallel_apply(np.sort, a, **ISOLATED)
            if got.tobytes() != want.tobytes():
                wrong.append(got)

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_thread_of_a_function_that_runs_here(monkeypatch):
    """It wants workers that the call of its own starter holds."""
    monkeypatch.setattr(processes, "TURN_SECONDS", 0.01)
    found = []

    def f(x):
        thread = threading.Thread(target=lambda: found.append(parallel_apply(np.sum, np.ones((4, 2)), **ISOLATED)))
        thread.start()
        thread.join()
        return x

    assert_same(parallel_apply(f, np.arange(2), workers=2, verify=False), np.arange(2))
    assert [one.tolist() for one in found] == [[2.0] * 4] * len(found)


def test_nested_calls(runner):
    def f(x):
        inner = parallel_apply(lambda y: y + x, np.arange(3.0), isolate=True, workers=2, retries=1)
        with_gap = parallel_apply(lambda y: y + x, np.arange(3.0), errors="ignore", timeout=60)
        return inner.sum() + with_gap.sum()

    assert_same(parallel_apply(f, np.arange(6.0), **runner), np.arange(6.0) * 6 + 6)


def apply_inside(n):
    """For workers of others, which import this module."""
    return parallel_apply(np.cumsum, np.ones((n, 3)), isolate=True, workers=2).tolist()


def test_calls_from_workers_of_others(process_executor, thread_executor, dask_client):
    want = [[1.0, 2.0, 3.0]] * 5
    assert process_executor.submit(apply_inside, 5).result() == want
    assert thread_executor.submit(apply_inside, 5).result() == want
    assert dask_client.submit(apply_inside, 5, pure=False).result() == want


class Elsewhere(Executor):
    """One process of somebody else's executor that is at two tasks at a time."""

    def __init__(self):
        self._threads = ThreadPoolExecutor(2)

    def submit(self, func, /, *args, **kwargs):
        return self._threads.submit(func, *args, **kwargs)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


def test_a_first_task_that_waits_for_another_there():
    """So does a function that has Dask compute something: its worker takes on another task meanwhile."""
    name = "parwise_test_meeting"
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].other = threading.Event()

    def f(x, name, caller):
        other = sys.modules[name].other
        if x > 0:
            other.set()
        elif threading.get_ident() != caller:
            assert other.wait(20)
        return 2 * x

    try:
        with Elsewhere() as executor:
            got = parallel_apply(f, np.arange(3.0), args=(name, threading.get_ident()), executor=executor, workers=2)
    finally:
        del sys.modules[name]
    assert_same(got, np.arange(3.0) * 2)


def test_a_process_that_could_not_be_proved_is_sent_the_call_again(monkeypatch):
    """Its first task has to be compared before any other of its results counts."""
    given = []

    class Told(Elsewhere):
        def submit(self, func, /, *args, **kwargs):
            given.append(args)
            return super().submit(func, *args, **kwargs)

    with Told() as executor:
        parallel_apply(np.negative, np.arange(3.0), executor=executor, workers=2)
    token, payload, table, arguments = given[0]
    remote._sessions.pop(token, None)
    with monkeypatch.context() as patch:
        patch.setattr(remote.Session, "run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            remote.compute(token, payload, table, arguments)
    assert remote.compute(token, None, table, arguments) == remote.MISSING
    assert remote.compute(token, payload, table, arguments)[1] is not None


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
        assert told[name] in ("2.0, 2.0, 2.0]", "ParwiseError", "RuntimeError"), told
    assert told["here"] == told["last registered"] == "2.0, 2.0, 2.0]"


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
