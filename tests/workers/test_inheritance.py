"""Workers have the rights, limits and places that a new process would inherit now."""

from __future__ import annotations

import json
import os

import pytest

from ..support.scripts import run_script

#: What a function can tell of its process, and the calls that compare it with the caller.
HEAD = """
import ctypes, json, os, resource, signal, sys, threading
import numpy as np
from parwise import Pool, parallel_apply
from parwise._workers.pool.default_pool import default_pool
libc = ctypes.CDLL(None, use_errno=True)
STATUS = ("Umask", "Uid", "Gid", "Groups", "SigIgn", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs")
def look(x=0):
    with open("/proc/self/status") as file:
        found = {line.partition(":")[0]: line.split()[1:] for line in file}
    found = {name: found[name] for name in STATUS}
    # Workers ignore SIGINT, and not SIGQUIT, whatever the caller does; 32 and 33 belong to glibc.
    found["SigIgn"] = [str(int(found["SigIgn"][0], 16) & ~(3 << (signal.SIGINT - 1) | 3 << 31))]
    limits = [resource.getrlimit(k) for k in range(16)]
    spaces = {name: os.readlink("/proc/self/ns/" + name) for name in sorted(os.listdir("/proc/self/ns"))}
    place = [os.getsid(0), os.stat("/").st_ino, os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))]
    return json.dumps([found, limits, spaces, place])
def in_workers():
    def f(x):
        return np.array([look(), str(os.getpid())], dtype=object)
    rows = parallel_apply(f, np.arange(8), isolate=True, workers=2)
    assert len(set(rows[:, 0])) == 1
    return rows[0, 0], set(rows[:, 1])
def check(renewed):
    told, pids = in_workers()
    assert told == look(), (told, look())
    assert bool(pids & before) != renewed, (pids, before)
    assert in_workers()[1] & pids, "replaced again"
told, before = in_workers()
assert told == look(), (told, look())
"""


def run(code):
    done = run_script(HEAD + code + "\nprint('done')")
    if done.stdout.startswith("forbidden"):
        pytest.skip(f"this machine forbids it: {done.stdout}")
    assert (done.stdout, done.stderr) == ("done\n", "")


CHANGES = {
    "a limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
    "the nice value": "os.nice(1)",
    "the CPUs": "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
    "ignored signals": "signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
    "the group": "os.setgid(65534)",
    "supplementary groups": "os.setgroups([65533, 65534])",
    "no new privileges": "assert libc.prctl(38, 1, 0, 0, 0) == 0",
    "a capability": "if libc.prctl(24, 25, 0, 0, 0): raise PermissionError",  # PR_CAPBSET_DROP, CAP_SYS_TIME
    "a namespace": "if libc.unshare(0x04000000): raise PermissionError",  # CLONE_NEWUTS
}


@pytest.mark.parametrize("change", CHANGES)
def test_workers_are_replaced_after_a_change_of(change):
    run(f"""
try:
    {CHANGES[change]}
except PermissionError as error:
    print("forbidden", error)
    raise SystemExit
check(renewed=look() != told)
if len(os.sched_getaffinity(0)) > 1 or {change!r} != "the CPUs":
    assert look() != told
""")


def test_workers_stay_where_nothing_or_what_they_follow_has_changed():
    run("""
check(renewed=False)
os.umask(0o077)
os.environ["PARWISE_TEST"] = "1"
signal.signal(signal.SIGINT, signal.SIG_IGN)  # workers ignore it whatever the caller does
signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as os.system does in any thread, for as long as it runs
told, pids = in_workers()
assert pids & before and json.loads(told)[0]["Umask"] == ["0077"]
""")


def test_after_giving_up_root_nothing_runs_as_root():
    """The old workers cannot be killed by the new user: their fork server ends them."""
    run("""
class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
class Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]
if os.getuid() != 0:
    print("forbidden: not root")
    raise SystemExit
old = [os.pidfd_open(pid) for pid in [default_pool().fork_server.pid, *map(int, before)]]
# One capability stays, to read the interpreter's files wherever they are installed.
reading = 1 << 2
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sets = (Sets * 2)(Sets(reading, reading, reading), Sets(0, 0, 0))
if libc.capset(ctypes.byref(Header(0x20080522, 0)), sets) or libc.prctl(47, 2, 2, 0, 0):
    print("forbidden: capset")
    raise SystemExit
check(renewed=True)
assert json.loads(in_workers()[0])[0]["Uid"] == ["65534"] * 4
import select
poll = select.poll()
for fd in old:
    poll.register(fd, select.POLLIN)
while old:
    for fd, _ in poll.poll(5000):
        poll.unregister(fd)
        old.remove(fd)
""")


def test_submitted_calls_have_the_rights_of_their_time():
    """Also while an earlier call is still at work."""
    run("""
if os.getuid() != 0:
    print("forbidden: not root")
    raise SystemExit
def wait(path):
    while not os.path.exists(path):
        pass
    return os.getgid()
import tempfile
with tempfile.TemporaryDirectory() as folder, Pool(workers=2) as pool:
    os.chmod(folder, 0o777)
    path = os.path.join(folder, "go")
    first = pool.submit(wait, path)
    assert pool.submit(os.getgid).result() == 0
    os.setresgid(65534, 65534, 65534)
    second = pool.submit(os.getgid)
    open(path, "w").close()
    assert (first.result(), second.result()) == (0, 65534)
""")


@pytest.mark.parametrize("kind", ["CLONE_NEWPID", "CLONE_NEWTIME"])
def test_children_in_other_namespaces_than_the_caller_are_refused(kind):
    """Numbers of processes, or clocks, would not be those of the caller; the namespace gets no process of ours."""
    run(f"""
if libc.unshare({{"CLONE_NEWPID": 0x20000000, "CLONE_NEWTIME": 0x80}}[{kind!r}]):
    print("forbidden", os.strerror(ctypes.get_errno()))
    raise SystemExit
from parwise import ParwiseError
for _ in range(2):
    try:
        in_workers()
    except ParwiseError as error:
        assert "has called unshare" in str(error), error
    else:
        raise AssertionError("not refused")
assert parallel_apply(np.negative, np.arange(3.0), executor="threads").tolist() == [0, -1, -2]
if (pid := os.fork()) == 0:
    status = 0 if parallel_apply(np.negative, np.arange(3.0), isolate=True, workers=1).tolist() == [0, -1, -2] else 1
    default_pool().stop()
    os._exit(status)
assert os.waitpid(pid, 0)[1] == 0
""")


def test_reading_it_leaves_nothing_open():
    from parwise._system.inheritance import read_inherited

    before = os.listdir("/proc/self/fd")
    assert read_inherited() == read_inherited()
    assert os.listdir("/proc/self/fd") == before
    assert json.dumps(read_inherited()[0])
