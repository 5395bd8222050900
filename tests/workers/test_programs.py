"""Unusual programs: frozen, embedded, patched, without streams or working directory, process 1 of a container."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

import parwise
from parwise import ParwiseError, parallel_apply, parallel_map
from parwise._workers.pool import watchdog, worker_pool

from ..support.functions import ISOLATED
from ..support.internals import default_pool
from ..support.scripts import run_script

#: Options by which workers compute, and the caller too where that is not isolated.
WAYS = ["isolate=True, workers=2", "workers=2", "executor='threads', workers=2", "executor='serial'"]


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("where", ["module", "thread", "Pool", "initializer", "sitecustomize"])
def test_calls_while_a_module_is_imported(where, level, tmp_path):
    """A module that makes a call when it is imported, of a function that workers import it for."""
    calls = {
        "module": "R = parallel_map(f, range(4), isolate=True, workers=2)",
        "thread": "Thread(target=parallel_map, args=(abs, range(4)), kwargs=OPTIONS).start()",
        "Pool": "with Pool(2) as pool:\n    R = list(pool.map(f, range(4)))",
        "initializer": "with Pool(1, initializer=f, initargs=(1,)) as pool:\n    R = list(pool.map(f, range(4)))",
        "sitecustomize": "R = parallel_map(abs, range(4), isolate=True, workers=2)",
    }
    for number in range(level):
        name = "sitecustomize" if where == "sitecustomize" and not number else f"inner{number}"
        inner = f"import inner{number + 1}\n" if number + 1 < level else ""
        (tmp_path / f"{name}.py").write_text(
            f"{inner}from threading import Thread\nfrom parwise import Pool, parallel_map\n"
            f"OPTIONS = dict(isolate=True, workers=2)\ndef f(k):\n    return k + 1\n{calls[where]}\n"
        )
    name = "sitecustomize" if where == "sitecustomize" else "inner0"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run_script(
        f"import {name}; from parwise import parallel_map; print(parallel_map({name}.f, range(3), **{name}.OPTIONS))",
        "-",
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stderr == ""
    assert done.stdout == "[1, 2, 3]\n"


def test_everything_in_a_worker_runs_in_that_worker():
    def pids(k):
        import threading

        found = []

        def call():
            found.extend(parallel_map(lambda _: os.getpid(), range(3), isolate=True, workers=2))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        with parwise.Pool(2) as pool:
            found.append(pool.submit(os.getpid).result())
        return set(found) == {os.getpid()}

    assert parallel_map(pids, range(3), **ISOLATED) == [True] * 3


FROZEN = """
import sys
sys.frozen = True
import parwise
parwise.freeze_support()
print("begun", flush=True)
def f(k):
    return k + 1
print(parwise.parallel_map(f, range(4), isolate=True, workers=2))
with parwise.Pool(2) as pool:
    print(list(pool.map(f, range(4))))
"""


@pytest.fixture
def program(tmp_path):
    """Make an executable file of a Python script, as tools that freeze programs do."""

    def make(code):
        path = tmp_path / "app"
        path.write_text(f"#!{sys.executable}\nimport sys\nsys.executable = __file__\n{code}")
        path.chmod(0o755)
        return path

    return make


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_frozen_program_serves_its_own_workers(program):
    done = run(program(FROZEN), "an argument")
    assert done.stderr == ""
    assert done.stdout == "begun\n[1, 2, 3, 4]\n[1, 2, 3, 4]\n"


def test_frozen_program_without_freeze_support_is_refused(program):
    done = run(program(FROZEN.replace("parwise.freeze_support()", "")))
    assert "NoWorkersError: worker processes cannot be started: this program is frozen" in done.stderr
    assert "parwise.freeze_support()" in done.stderr
    assert done.stdout == "begun\n"  # once


def test_freeze_support_changes_nothing_in_other_programs():
    done = run_script(
        """
        import sys, parwise
        modules = set(sys.modules)
        parwise.freeze_support()
        print([name for name in set(sys.modules) - modules if "_workers" in name])
        print(parwise.parallel_map(abs, range(3), isolate=True, workers=2))
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "[]\n[0, 1, 2]\n"


@pytest.mark.parametrize("name", ["", None, "/usr/sbin/httpd", "/usr/bin/uwsgi", "/opt/blender/blender"])
@pytest.mark.parametrize("options", WAYS[:2])
def test_program_that_embeds_python_is_not_started_again(name, options):
    done = run_script(
        f"""
        import sys, parwise, numpy as np, os
        sys.executable = {name!r}
        before = len(os.listdir("/proc/self/fd"))
        try:
            parwise.parallel_apply(lambda x: sum(range(20_000)), np.ones(2_000), {options})
        except (parwise.ParwiseError, RuntimeWarning) as told:
            print(told)
        assert len(os.listdir("/proc/self/fd")) == before
        import multiprocessing
        multiprocessing.set_executable({sys.executable!r})
        print(parwise.parallel_map(abs, range(3), isolate=True, workers=2))
        """,
        "-",
    )
    assert done.stderr == ""
    error, result = done.stdout.splitlines()
    assert repr(name) in error
    assert "multiprocessing.set_executable" in error
    assert result == "[0, 1, 2]"


def test_interpreter_that_is_not_there(monkeypatch):
    default_pool().stop()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.delitem(sys.modules, "multiprocessing.spawn", raising=False)  # which names one too
    with pytest.raises(ParwiseError, match=r"could not be started .*/nowhere/python"):
        parallel_map(abs, range(3), **ISOLATED)
    monkeypatch.undo()
    assert parallel_map(abs, range(3), **ISOLATED) == [0, 1, 2]


PATCHES = {
    "gevent": "del select.epoll; select.poll = select.select = refused",
    "eventlet": "del select.epoll, select.poll; select.select = refused",
    "greenlets": "refused.__module__ = 'gevent.thread'; _thread.start_new_thread = refused",
    "sockets": "socket.socket = socket.socketpair = socket.fromfd = refused",
    "timeout": "socket.setdefaulttimeout(5)",
    "fork": "os.fork = refused",
    "threads": "threading.Thread.native_id = property(refused)",
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("patch", PATCHES)
def test_patched_standard_library(patch, late):
    """What gevent and eventlet do to these modules, before and after parwise is imported."""
    done = run_script(
        f"""
        import _thread, os, select, socket, threading
        {"import parwise._workers.pool.forked_pool, parwise._workers.pool.worker_handle" if late else ""}
        def refused(*given):
            raise AttributeError("patched away")
        {PATCHES[patch]}
        import numpy as np
        from parwise import Pool, parallel_apply, parallel_imap, parallel_map
        def f(x):
            return sum(range(5_000)) + x
        want = [f(x) for x in range(300)]
        for k in range(4):
            assert parallel_map(f, range(300), isolate=True, workers=2) == want
            assert parallel_map(f, range(300), workers=2) == want
            assert list(parallel_imap(f, range(30), workers=2)) == want[:30]
            if k == 0:
                descriptors = len(os.listdir("/proc/self/fd"))
        assert len(os.listdir("/proc/self/fd")) == descriptors
        with Pool(2) as pool:
            assert pool.submit(f, 3).result() == want[3]
        print("right")
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "right\n"


def test_program_that_sigpipe_ends():
    """As command line tools want it: the death of a worker ends the worker alone."""
    done = run_script(
        """
        import os, signal
        from parwise import parallel_map
        from parwise._workers.pool.default_pool import default_pool
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        assert parallel_map(abs, range(4), isolate=True, workers=2) == [0, 1, 2, 3]
        for worker in default_pool().workers:
            os.kill(worker.pid, signal.SIGKILL)
            while not worker.over:
                pass
            for fds in ([], [0]):
                try:
                    worker.channel.send("unload", fds=fds)
                except ConnectionError:
                    print("dead")
        print(parallel_map(abs, range(4), isolate=True, workers=2))
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "dead\n" * 4 + "[0, 1, 2, 3]\n"


@pytest.mark.parametrize("way", ["SIG_IGN", "wait"])
def test_program_that_waits_for_each_of_its_children(way):
    """As servers do: of a worker that is a child too nobody knows how it ended, and nobody claims to."""
    done = run_script(
        f"""
        import os, signal
        import parwise
        def wait(*_):
            try:
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            except ChildProcessError:
                pass
        signal.signal(signal.SIGCHLD, {"wait" if way == "wait" else "signal.SIG_IGN"})
        options = dict(isolate=True, workers=2)
        for end in (lambda k: k and os.kill(os.getpid(), signal.SIGKILL), lambda k: k and os.abort()):
            try:
                parwise.parallel_map(end, range(2), **options)
            except parwise.WorkerDiedError as error:
                assert error.exitcode is None, error
            assert parwise.parallel_map(abs, range(4), **options) == [0, 1, 2, 3]
        print("right")
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "right\n"


def test_default_timeout_of_sockets_in_this_process():
    default_pool().stop()
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(3.0)
    try:
        assert parallel_map(abs, range(8), **ISOLATED) == list(range(8))
    finally:
        socket.setdefaulttimeout(before)


def test_worker_that_reads_nothing_for_a_while(monkeypatch):
    """Messages for which its socket has no room wait, and the worker computes again afterwards."""
    for module in (watchdog, worker_pool):  # a worker that is seen to be stopped is replaced
        monkeypatch.setattr(module, "LOOK_SECONDS", float("inf"))
    held = "x" * 10_000
    assert parallel_map(abs, range(8), **ISOLATED) == list(range(8))
    while not all(one.ready for one in default_pool().workers[:2]):  # or the stopped one may be given an element
        assert parallel_map(abs, range(8), **ISOLATED) == list(range(8))
    _, worker = default_pool().workers[:2]
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        # A function and its surroundings that are large go through a file: then the messages are many.
        for k in range(2000):
            assert parallel_map(lambda x: x + len(held), [k], **ISOLATED) == [k + 10_000]
            if worker.channel.waiting:
                break
        assert worker.channel.waiting
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    pids = set()
    while worker.pid not in pids:
        pids |= set(parallel_map(lambda x: (held, os.getpid())[1], range(50), **ISOLATED))
    assert worker in default_pool().workers
    assert not worker.channel.waiting


@pytest.mark.parametrize("options", WAYS)
def test_working_directory_that_was_removed(options, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    done = run_script(
        f"""
        import os, sys, numpy as np
        from parwise import Pool, parallel_apply, parallel_map
        assert "" in sys.path
        os.rmdir(os.getcwd())
        def f(k):
            try:
                return os.getcwd()
            except FileNotFoundError:
                return sum(range(20_000)) + k
        for items in (range(3), range(1_000)):
            assert parallel_map(f, items, {options}) == [f(k) for k in items]
        print(parallel_apply(np.negative, np.arange(3), {options}).tolist())
        """,
        "-",
        cwd=folder,
    )
    assert done.stderr == ""
    assert done.stdout == "[0, -1, -2]\n"


STREAMS = {
    "None": "None",
    "without flush": "type('Stream', (), {'write': lambda self, text: texts.append(text)})()",
    "with a flush that raises": "type('Stream', (), {'write': lambda self, x: texts.append(x), 'flush': len})()",
}


@pytest.mark.parametrize("options", WAYS)
@pytest.mark.parametrize("stream", STREAMS)
def test_standard_streams_that_lack_something(stream, options):
    done = run_script(
        f"""
        import os, sys, warnings
        from parwise import parallel_map
        texts, real = [], sys.stdout
        sys.stdout = sys.stderr = {STREAMS[stream]}
        def f(k):
            print("text", k)
            print("more", k, file=sys.stderr)
            return sum(range(20_000)) + k
        for items in (range(3), range(600)):
            assert parallel_map(f, items, {options}) == [sum(range(20_000)) + k for k in items]
        sys.stdout, sys.stderr = real, sys.__stderr__
        text = "".join(texts)
        if texts and "threads" not in {options!r}:  # they print in turns, and not line by line
            for k in range(600):
                assert text.count(f"text {{k}}\\n") == text.count(f"more {{k}}\\n") == 1 + (k < 3)
        print("right")
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "right\n"


def test_bar_without_a_stream(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", None)
    assert parallel_map(abs, range(5), progress=True, **ISOLATED) == list(range(5))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_that_are_closed(closed, tmp_path):
    """As of a daemon: what programs print to these numbers does not reach a socket of parwise."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import os
from parwise import parallel_map
def f(k):
    os.system("echo text; echo more >&2")
    return k
found = [parallel_map(f, range(4), isolate=True, workers=2) for _ in range(3)]
with open({str(tmp_path / "found")!r}, "w") as file:
    file.write(str(found))
"""
    )
    subprocess.run(f"{sys.executable} {script} {closed}", shell=True, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "found").read_text() == str([[0, 1, 2, 3]] * 3)


CONTAINER = """
import ctypes, os, signal, subprocess, sys
from multiprocessing import resource_tracker
import parwise
if os.getpid() != 1:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
def left():
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found += file.read().split()
    return [one for one in found if int(one) != resource_tracker._resource_tracker._pid]
def f(k):
    subprocess.Popen(["sleep", "100"])
    return k
for k in range(3):
    with parwise.Pool(2) as pool:
        assert list(pool.map(f, range(4))) == list(range(4))
    assert left() == [], left()
pool = parwise.Pool(2)
for k in range(3):
    try:
        parwise.parallel_map(lambda k: f(k) and os._exit(3), range(1, 9), isolate=True, executor=pool)
    except parwise.WorkerDiedError:
        pass
pool.shutdown()
assert left() == [], left()
from parwise._workers.pool.default_pool import default_pool
assert parwise.parallel_map(f, range(3), isolate=True, workers=2) == [0, 1, 2]
server = getattr(default_pool(), "fork_server", None)
for pid in [server.pid] if server else [worker.pid for worker in default_pool().workers]:
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
assert parwise.parallel_map(abs, range(3), isolate=True, workers=2) == [0, 1, 2]
default_pool().stop()
assert left() == [], left()
print("right")
"""


def test_no_zombie_is_left_to_a_process_that_adopts():
    done = run_script(CONTAINER, "-W", "ignore::ResourceWarning", "-")
    assert done.stderr == ""
    assert done.stdout == "right\n"


def test_no_zombie_is_left_to_process_1_of_a_container(tmp_path):
    command = ["unshare", "--user", "--map-root-user", "--fork", "--pid", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.call([*command, "true"], stderr=subprocess.DEVNULL):
        pytest.skip("no namespaces here")
    script = tmp_path / "script.py"
    script.write_text(CONTAINER)
    done = subprocess.run(
        [*command, sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "right\n"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, ValueError])
def test_arguments_and_results_that_raise_while_they_are_rebuilt(kind, mortal):
    def broken():
        raise kind("no way")

    class Odd:
        def __init__(self, where):
            self.where = where

        def __reduce__(self):
            return (broken if self.where == "worker" else Late), ()

    class Late:
        def __reduce__(self):
            return broken, ()

    with pytest.raises(kind, match="no way"):
        parallel_map(lambda x: 1, [1, Odd("worker")], **ISOLATED)
    if kind is not KeyboardInterrupt:  # which is taken for Ctrl-C in the main thread
        with pytest.raises(kind, match="no way"):
            parallel_map(lambda x: Odd("worker") if x else x, [0, 1], **ISOLATED)
    futures = [mortal.submit(lambda x: x, x) for x in (1, Odd("worker"), Odd("caller"), 2)]
    assert futures[0].result() == 1
    assert isinstance(futures[1].exception(), kind)
    assert isinstance(futures[2].exception(), kind)
    assert futures[3].result() == 2
    assert parallel_apply(np.negative, np.arange(3), **ISOLATED).tolist() == [0, -1, -2]
