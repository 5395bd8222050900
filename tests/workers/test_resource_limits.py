"""Limits of memory and of file sizes, and workers that grow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from parwise import Pool, parallel_apply
from parwise._system.limits import own_bytes
from parwise._workers import shared_memory
from parwise._workers.pool import watchdog, worker_pool
from parwise._workers.shared_memory import fitting_slot_bytes

from ..support.functions import ISOLATED
from ..support.internals import default_pool
from ..support.oracle import assert_same
from ..support.scripts import run_script


def test_files_of_limited_size():
    """RLIMIT_FSIZE limits shared memory too."""
    done = run_script(
        """
        import resource, numpy as np
        from parwise import parallel_apply, ParwiseError
        from parwise._workers.pool.default_pool import default_pool
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
    assert "leave 9000 bytes for each worker" in done.stdout
    assert "executor='threads'" in done.stdout
    assert done.stdout.splitlines()[-1] == "[2. 2. 2.] [2. 2. 2.]"


def test_slots_take_a_small_part_of_the_memory(monkeypatch):
    monkeypatch.setattr(shared_memory, "memory_limit", lambda: 2**25)
    monkeypatch.setattr(shared_memory, "cpu_count", lambda: 4)
    assert 0 < fitting_slot_bytes() * 5 * 4 <= 2**25 // 16
    monkeypatch.setattr(shared_memory, "memory_limit", lambda: 2**40)
    assert fitting_slot_bytes() == 2**20


def test_nothing_lives_in_dev_shm():
    def f(x):
        with open("/proc/self/maps") as file:
            lines = file.readlines()
        return any("/dev/shm" in line for line in lines), any("/memfd:parwise" in line for line in lines)

    with Pool(2) as pool:  # workers that no other test has sent a lock, which lies there
        shm, memfd = parallel_apply(f, np.arange(4), executor=pool, isolate=True)
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
    """Return a function that keeps `megabytes` more memory with each call."""
    kept = []

    def f(x):
        kept.append(np.ones(megabytes * 2**17))
        return os.getpid()

    return f


def test_worker_that_grows_is_renewed(monkeypatch):
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(watchdog, "GROWTH_BYTES", 40 * 2**20)
    where = parallel_apply(hoard(4), np.arange(100), verify=False, **ISOLATED)
    assert len(where) == 100
    assert len(set(where.tolist())) > 2  # a worker goes between two tasks
    assert max(map(where.tolist().count, set(where.tolist()))) < 80
    a = np.arange(100.0)
    assert_same(parallel_apply(np.sqrt, a, **ISOLATED), np.sqrt(a))


def test_worker_that_does_not_grow_stays(monkeypatch):
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(watchdog, "GROWTH_BYTES", 40 * 2**20)

    def f(x):
        np.ones(2**20).sum()
        time.sleep(0.001)
        return os.getpid()

    assert len(set(parallel_apply(f, np.arange(100), **ISOLATED).tolist())) == 2


def test_worker_that_is_large_between_calls_is_renewed(monkeypatch):
    monkeypatch.setattr(worker_pool, "LOOK_SECONDS", 0.0)
    before = set(parallel_apply(hoard(1), np.arange(60), verify=False, **ISOLATED).tolist())
    assert set(parallel_apply(lambda x: os.getpid(), np.arange(60), **ISOLATED).tolist()) <= before | {
        worker.pid for worker in default_pool().workers
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
    while any(private_bytes(worker.pid) >= big.nbytes for worker in default_pool().workers):
        assert time.monotonic() < deadline, "a worker keeps the function of a call that is over"
        os.sched_yield()
    assert_same(parallel_apply(np.negative, np.arange(9.0), **ISOLATED), -np.arange(9.0))


def private_bytes(pid):
    """Return the bytes of the largest private mapping of parwise's shared memory in another process."""
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
    for worker in default_pool().workers:
        assert worker.channel.sock.getsockname() == ""
        assert worker.channel.sock.getpeername() == ""
        assert not os.get_inheritable(worker.channel.fileno())
        assert not os.get_inheritable(worker.pidfd)
