"""Systems that lack what Linux has, made by taking it away in the caller and in its workers."""

from __future__ import annotations

import functools
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import os, time, numpy as np, parwise
from parwise._workers.pool.default_pool import default_pool
{checks}
print("done", flush=True)
"""

#: What is taken away, or refused by the kernel.
SYSTEMS = {
    "windows": "take_away()",
    "macos": "take_away(OF_LINUX, ())",
    "no pidfd_open": "refuse('pidfd_open')",
    "no memfd_create": "refuse('memfd_create')",
    "a sandbox": "refuse('eventfd', errno.EPERM)",
    "no proc": "take_away({}, ())",
}
#: Each alone.
ALONE = {
    "fork": "take_away({os: ['fork']}, (), proc=False)",
    "posix_spawn": "take_away({os: ['posix_spawn']}, (), proc=False)",
    "memfd_create": "take_away({os: ['memfd_create']}, (), proc=False)",
    "pidfd_open": "take_away({os: ['pidfd_open']}, (), proc=False)",
    "sched_getaffinity": "take_away({os: ['sched_getaffinity']}, (), proc=False)",
    "epoll": "take_away({select: ['epoll']}, (), proc=False)",
    "pthread_sigmask": "take_away({signal: ['pthread_sigmask']}, (), proc=False)",
    "AF_UNIX": "take_away({socket: ['AF_UNIX', 'SCM_RIGHTS', 'socketpair']}, (), proc=False)",
    "fcntl": "take_away({}, ['fcntl'], proc=False)",
    "resource": "take_away({}, ['resource'], proc=False)",
}

#: Modules without which there are no portable workers: Android lacks them.
NO_MODULES = {
    "_posixshmem": "take_away({os: ('memfd_create',)}, ('_posixshmem', 'multiprocessing.shared_memory'), proc=False)",
    "sem_open": "take_away({os: ('memfd_create',)}, ('multiprocessing.synchronize',), proc=False)",
}

CALLS = """
a = np.arange(1000.0).reshape(100, 10)
assert (parwise.parallel_apply(np.cumsum, a) == a.cumsum(1)).all()
for executor in ("serial", "threads"):
    assert (parwise.parallel_apply(np.cumsum, a, executor=executor) == a.cumsum(1)).all(), executor
big = np.ones(200_000)
def slow(x):
    time.sleep(0.001)
    print("row", int(x[0]))
    return np.cumsum(x) * big[0]
for options in ({}, {"isolate": True}, {"timeout": 60}, {"retries": 1}):
    assert (parwise.parallel_apply(slow, a, workers=2, **options) == a.cumsum(1)).all(), options
assert type(default_pool()).__name__ == "PortablePool"
with parwise.Pool(2, initializer=time.sleep, initargs=(0,)) as pool:
    assert list(pool.map(abs, range(-30, 0))) == list(range(30, 0, -1))
wide = np.random.default_rng(0).random((6, 300_000))
assert (parwise.parallel_apply(np.sort, wide, workers=2, isolate=True) == np.sort(wide)).all()
assert parwise.parallel_map(abs, range(-50, 0), workers=2, isolate=True) == list(range(50, 0, -1))
with parwise.Pool(2) as pool:
    assert list(pool.map(abs, range(-30, 0))) == list(range(30, 0, -1))
"""

SHORT = """
a = np.arange(400.0).reshape(40, 10)
assert (parwise.parallel_apply(np.cumsum, a) == a.cumsum(1)).all()
def pid(x):
    time.sleep(0.001)
    return float(os.getpid())
pids = parwise.parallel_apply(pid, a, workers=2, isolate=True)
assert os.getpid() not in pids
def die(x):
    os._exit(3)
try:
    parwise.parallel_apply(die, a, workers=2, isolate=True)
except parwise.WorkerDiedError as error:
    assert error.exitcode == 3, error
assert (parwise.parallel_apply(np.cumsum, a, workers=2, isolate=True) == a.cumsum(1)).all()
"""

FAULTS = """
def die(x):
    if x == 7:
        os._exit(3)
    return x
try:
    parwise.parallel_apply(die, np.arange(20.0), workers=2, isolate=True)
except parwise.WorkerDiedError as error:
    assert error.index == 7 and error.exitcode == 3, error
def hang(x):
    time.sleep(60 * (x == 3))
    return x
try:
    parwise.parallel_apply(hang, np.arange(8.0), workers=2, timeout=0.5)
except parwise.ElementTimeoutError as error:
    assert error.index == 3, error
def raises(x):
    return 1 / (x - 5)
try:
    parwise.parallel_map(raises, range(20), workers=2, isolate=True)
except ZeroDivisionError as error:
    assert "5" in error.__notes__[0]
assert (parwise.parallel_apply(np.negative, np.arange(9.0), workers=2, isolate=True) == -np.arange(9.0)).all()
"""

INTERRUPT = """
parwise.parallel_apply(np.negative, np.arange(9.0), workers=2, isolate=True)  # all is imported
try:
    print("begun", flush=True)
    parwise.parallel_apply(lambda x: time.sleep(60), np.arange(8.0), workers=2, isolate=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@functools.cache
def can_refuse():
    """True if a process here can have a system call refused."""
    code = "from tests.support.elsewhere import refuse; refuse('eventfd')"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture
def start(tmp_path, request):
    """Start a script on a system of that name; what is missing is taken away before anything is imported."""

    def start(system, checks):
        lines = (SYSTEMS | ALONE | NO_MODULES)[system]
        if "refuse" in lines and not can_refuse():
            pytest.skip("this machine forbids seccomp filters, which refuse system calls here")
        text = (ROOT / "tests" / "support" / "elsewhere.py").read_text()
        (tmp_path / "elsewhere.py").write_text(text)
        # In this process and in each that it starts, the workers.
        (tmp_path / "sitecustomize.py").write_text(f"from elsewhere import *\n{lines}\n")
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(checks=checks))
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        request.addfinalizer(lambda: (process.kill(), process.communicate()))
        return process

    return start


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("checks", [CALLS, FAULTS], ids=["calls", "faults"])
def test_calls(system, checks, start):
    out, err = start(system, checks).communicate(timeout=60)
    assert err == ""
    assert out.splitlines()[-1] == "done"
    if checks == CALLS:
        assert out.count("row") == 100 * 4


BY_ITSELF = """
import warnings
a = np.arange(4000.0).reshape(400, 10)
def slow(x):
    time.sleep(0.001)
    return np.cumsum(x)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert (parwise.parallel_apply(slow, a, workers=2) == a.cumsum(1)).all()
assert len(caught) == 1 and "computed this call alone: this Python has no worker" in str(caught[0].message), caught
try:
    parwise.parallel_apply(slow, a, workers=2, isolate=True)
except parwise.ParwiseError as error:
    assert "threads" in str(error)
else:
    raise AssertionError
"""


@pytest.mark.parametrize("system", NO_MODULES)
def test_a_python_without_shared_memory_or_semaphores(system, start):
    out, err = start(system, BY_ITSELF).communicate(timeout=60)
    assert (out, err) == ("done\n", "")


@pytest.mark.parametrize("system", ALONE)
def test_without_one(system, start):
    """Whichever workers these are."""
    out, err = start(system, SHORT).communicate(timeout=60)
    assert (out, err) == ("done\n", "")


NAMES = """
def print_names(workers):
    print(*[worker.pid for worker in workers], flush=True)
    names = [worker._segment.name for worker in workers]
    print(*names, *["sem." + one.semaphore._semlock.name[1:] for w in workers for one in w.slots.claims], flush=True)
    time.sleep(60)
"""

#: When the caller is killed, and how many names there are in /dev/shm by then.
MOMENTS = {
    "at work": (
        """
def f(x):
    time.sleep(60)
with parwise.Pool(2) as pool:
    calls = [pool.submit(f, k) for k in range(2)]
    while not all(one.running() for one in calls):
        time.sleep(0.01)
    print_names(pool._pool.workers)
""",
        12,
    ),
    "at the start": (
        """
from parwise._workers.portable import worker
def tell(*_):
    print_names(default_pool().workers)
worker.tell = tell
parwise.parallel_apply(np.negative, np.arange(9.0), workers=1, isolate=True)
""",
        7,
    ),
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no folder of shared memory")
@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_is_left_when_the_caller_is_killed(moment, start):
    """Neither processes nor shared memory: workers see it, and the resource tracker removes what has a name."""
    lines, count = MOMENTS[moment]
    process = start("no pidfd_open", NAMES + lines)
    ended = [os.pidfd_open(int(pid)) for pid in process.stdout.readline().split()]
    files = [Path("/dev/shm", name) for name in process.stdout.readline().split()]
    assert sum(file.exists() for file in files) == count
    process.kill()
    process.communicate(timeout=60)  # the resource tracker holds stderr too, and ends last
    try:
        for fd in ended:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            assert poll.poll(10_000), "a worker goes on"
    finally:
        for fd in ended:
            os.close(fd)
    assert not [file for file in files if file.exists()]


@pytest.mark.parametrize("system", SYSTEMS)
def test_interrupt_and_a_clean_exit(system, start):
    process = start(system, INTERRUPT)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("interrupted\ndone\n", "")
