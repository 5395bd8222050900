"""Worker processes: how they start, what they get, and what becomes of them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import parwise
from parwise import (
    ParwiseError,
    ReproducibilityWarning,
    WorkerDiedError,
    parallel_apply,
)
from parwise._executors import dispatcher, processes
from parwise._system.blas import ThreadWatch
from parwise._workers import fork_server, handle, serialization, shared_memory
from parwise._workers.default_pool import default_pool
from parwise._workers.shared_memory import Slots, segment_bytes
from parwise._workers.worker_pool import WorkerPool

from .conftest import made as others
from .oracle import assert_same, loop
from .scripts import run_script

ISOLATED = {"isolate": True, "workers": 2}


def pids(**options):
    return sorted(set(parallel_apply(lambda x: (time.sleep(0.005), os.getpid())[1], np.arange(60), **options).tolist()))


def test_small_call_stays_here():
    assert set(parallel_apply(lambda x: os.getpid(), np.arange(50)).tolist()) == {os.getpid()}


def test_small_call_starts_no_process():
    done = run_script(
        """
        import os, numpy as np
        from parwise import parallel_apply
        from parwise._workers.default_pool import default_pool
        assert parallel_apply(lambda x: x + 1, np.arange(100.0)).sum() == 5050
        assert default_pool()._fork_server_pid == 0
        with open("/proc/self/task/%d/children" % os.getpid()) as children:
            print(children.read() == "")
        """,
        "-",
    )
    assert done.stderr == ""
    assert done.stdout == "True\n"


def test_workers_are_kept_between_calls():
    first = pids(**ISOLATED)
    assert len(first) == 2
    assert os.getpid() not in first
    assert pids(**ISOLATED) == first


def test_number_of_workers():
    assert len(pids(isolate=True, workers=3)) == 3
    assert len(pids(isolate=True, workers=1)) == 1


def test_caller_hands_over(eager):
    """Once workers are up the caller only feeds and collects."""
    pids(**ISOLATED)
    where = parallel_apply(lambda x: (time.sleep(0.001), os.getpid())[1], np.arange(200), workers=2, verify=False)
    assert where[0] == os.getpid()
    assert os.getpid() not in where[-100:]


def test_isolate_never_runs_here():
    assert os.getpid() not in parallel_apply(lambda x: os.getpid(), np.arange(5), **ISOLATED)
    assert os.getpid() not in parallel_apply(lambda x: os.getpid(), np.arange(1), **ISOLATED)


def test_long_first_element_does_not_keep_others_waiting(tmp_path):
    """While the caller is at element 0, workers do all the others."""
    gate = tmp_path / "others"
    os.mkfifo(gate)

    def f(x, folder):
        if x == 0 and os.getpid() == caller:  # wait for the last of the others
            with open(gate) as pipe:
                return float(pipe.read())
        if x == 7:
            with open(gate, "w") as pipe:
                pipe.write("0.0")
        return float(x)

    caller = os.getpid()
    got = parallel_apply(f, np.arange(8.0), args=(str(tmp_path),), workers=2)
    assert_same(got, np.arange(8.0))


def test_long_first_element_that_keeps_the_gil(tmp_path):
    """The same in pure Python, from a cold start."""
    done = run_script(
        """
        import os, sys, time, numpy as np
        from parwise import parallel_apply
        def f(x):
            end = time.monotonic() + 20
            while x == 0 and os.getpid() == caller and time.monotonic() < end:
                if os.path.exists(path):
                    break
            if x == 5:
                open(path, "w").close()
            return os.getpid()
        caller, path = os.getpid(), sys.argv[1]
        start = time.monotonic()
        where = parallel_apply(f, np.arange(6), workers=2, verify=False)
        print(where[0] == caller, caller in where[1:], time.monotonic() - start < 19)
        """,
        "-",
        str(tmp_path / "done"),
    )
    assert done.stderr == ""
    assert done.stdout == "True False True\n"


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
    threads = {name: os.environ.get(name) for name in fork_server._ONE_THREAD}
    got = parallel_apply(lambda x: repr({k: os.environ.get(k) for k in threads}), np.arange(2), **ISOLATED)
    assert got[0] == repr(threads)


def test_large_closure_travels_once_per_worker(monkeypatch):
    sent = []
    give = dispatcher.Dispatcher._send_task
    monkeypatch.setattr(
        dispatcher.Dispatcher,
        "_send_task",
        lambda self, worker, task, handshake=False: (sent.append(task), give(self, worker, task, handshake))[1],
    )
    big = np.random.default_rng(0).standard_normal(2_000_000)
    files = []
    create = serialization.create_fd
    monkeypatch.setattr(serialization, "create_fd", lambda nbytes: (files.append(nbytes), create(nbytes))[1])
    got = parallel_apply(lambda x: x * big[-1] + big[0], np.arange(300.0), **ISOLATED)
    assert_same(got, loop(lambda x: x * big[-1] + big[0], np.arange(300.0)))
    assert len(sent) > 3
    assert len(files) == 1
    assert big.nbytes < files[0] < big.nbytes + 20_000


def test_workers_write_to_their_own_copy_of_a_closure():
    big = np.zeros(200_000)

    def f(x):
        big[0] += 1
        return float(x)

    parallel_apply(f, np.arange(50.0), **ISOLATED, verify=False)
    assert big[0] == 0
    fixed = np.zeros(200_000)
    fixed.flags.writeable = False
    assert not parallel_apply(lambda x: fixed.flags.writeable, np.arange(3), **ISOLATED).any()


@pytest.mark.parametrize("rows", [2, 7])
def test_elements_and_results_larger_than_a_slot(rows):
    a = np.random.default_rng(1).standard_normal((rows, 400_000))
    assert_same(parallel_apply(np.sort, a, **ISOLATED), np.sort(a, axis=1))
    assert_same(parallel_apply(lambda x: np.tile(x, 2), a, **ISOLATED), np.tile(a, (1, 2)))
    assert_same(parallel_apply(np.sum, np.asfortranarray(a), **ISOLATED), loop(np.sum, np.asfortranarray(a)))
    got = parallel_apply(lambda x: {"x": x.tolist()}, a[:, :150_000], **ISOLATED)
    assert got[1] == {"x": a[1, :150_000].tolist()}


def test_many_columns_and_long_messages():
    def f(x):
        return tuple(np.full(3, x + k) for k in range(1500))

    got = parallel_apply(f, np.arange(6.0), **ISOLATED)
    assert len(got) == 1500
    assert_same(got[1499], np.repeat(np.arange(6.0)[:, None] + 1499, 3, axis=1))
    wide = np.dtype([(f"field_{k}", "f8") for k in range(5000)])
    assert parallel_apply(lambda x: np.full((), x, wide), np.arange(4.0), **ISOLATED)["field_4999"].tolist() == [
        0,
        1,
        2,
        3,
    ]


def test_function_that_keeps_its_argument():
    kept = []

    def f(x):
        kept.append(x)
        return sum(float(one.sum()) for one in kept[-2:]) - (float(kept[-2].sum()) if len(kept) > 1 else 0.0)

    a = np.random.default_rng(2).integers(0, 1000, (3000, 100)).astype(float)
    assert_same(parallel_apply(f, a, **ISOLATED), a.sum(axis=1))


def test_handshake_warns_of_random_numbers(eager):
    a = np.arange(100.0)
    with pytest.warns(ReproducibilityWarning, match="random numbers") as caught:
        parallel_apply(lambda x: np.random.random(), a, workers=2)
    assert caught[0].filename == __file__
    with pytest.raises(parwise.NotReproducibleError, match="other bits each time"):
        parallel_apply(lambda x: np.random.random(), a, workers=2, verify=True)
    parallel_apply(lambda x: np.random.random(), a, workers=2, verify=False)
    with pytest.warns(ReproducibilityWarning, match="shape"):
        parallel_apply(
            lambda x, caller: np.zeros(2 if os.getpid() == caller or x else 3), a, args=(os.getpid(),), workers=2
        )


def test_handshake_knows_equal_results(eager):
    for value in (np.nan, -0.0, {"a": [1, (2.0, np.arange(3))]}, "text", None, object, np.float32("nan"), 1 + 2j):
        parallel_apply(lambda x, value=value: value, np.arange(20), workers=2, verify=True)


def test_foreign_threads_of_callers(eager):
    """Calls from several threads at once: one has the workers, the others compute themselves."""
    a = np.random.default_rng(5).standard_normal((300, 50))
    want = loop(np.sort, a)
    failures = []

    def call():
        try:
            for _ in range(5):
                assert_same(parallel_apply(np.sort, a, workers=2), want)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_forked_child_of_the_user():
    """A child of the user's own fork makes workers of its own."""
    pids(**ISOLATED)
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
    assert len(pids(**ISOLATED)) == 2


def die_at(index, how):
    def f(x):
        if x == index:
            how()
        return float(x)

    return f


@pytest.mark.parametrize(
    ("how", "signum", "code"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), signal.SIGKILL, None),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), signal.SIGTERM, None),
        (os.abort, signal.SIGABRT, None),
        (lambda: os._exit(7), None, 7),
        (lambda: os._exit(0), None, 0),
    ],
)
@pytest.mark.parametrize("index", [0, 17, 39])
def test_dead_worker(how, signum, code, index):
    with pytest.raises(WorkerDiedError, match=f"in element {index} along axis 0") as caught:
        parallel_apply(die_at(index, how), np.arange(40), **ISOLATED)
    error = caught.value
    assert (error.index, error.signal, error.exitcode) == (index, signum, code)
    assert str(error.pid) in str(error)
    assert_same(parallel_apply(np.negative, np.arange(40), **ISOLATED), -np.arange(40))


def test_dead_worker_in_a_grid_and_a_block():
    kill = die_at(17.0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(kill, np.arange(40.0).reshape(8, 5), axis=(0, 1), **ISOLATED)
    assert caught.value.index == (3, 2)
    with pytest.raises(WorkerDiedError, match="in block 15:20 along axis 0"):
        parallel_apply(lambda b: kill(b[2]) + b, np.arange(40.0), vectorized=True, chunk=5, **ISOLATED)


def test_dead_worker_while_the_caller_computes(eager):
    caller = os.getpid()

    def f(x):
        if x == 59 and os.getpid() != caller:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return x

    pids(**ISOLATED)
    with pytest.raises(WorkerDiedError):
        parallel_apply(f, np.arange(60), workers=2)
    assert_same(parallel_apply(np.negative, np.arange(60), **ISOLATED), -np.arange(60))


def test_earlier_exception_wins_over_a_death():
    def f(x):
        if x == 3:
            time.sleep(0.05)
            raise KeyError("three")
        if x == 9:
            os._exit(3)
        return x

    with pytest.raises((KeyError, WorkerDiedError)) as caught:
        parallel_apply(f, np.arange(10), **ISOLATED)
    assert isinstance(caught.value, KeyError)


def test_dead_fork_server():
    pids(**ISOLATED)
    pool = default_pool()
    os.kill(pool._fork_server_pid, signal.SIGKILL)
    watched = [link.pidfd for link in pool.workers]
    poll = select.poll()
    for fd in watched:
        poll.register(fd, select.POLLIN)
    while watched:  # its workers go with it
        for fd, _ in poll.poll(5000):
            poll.unregister(fd)
            watched.remove(fd)
    assert len(pids(**ISOLATED)) == 2


def test_parent_killed_takes_workers_along():
    """Also with a worker that is stuck in C code."""
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


def test_interrupt(tmp_path):
    """Ctrl-C in the midst of a call: KeyboardInterrupt, and the next call is right."""
    done = run_script(
        """
        import os, signal, time, numpy as np
        from parwise import parallel_apply
        from parwise._workers.default_pool import default_pool
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


def test_function_that_cannot_travel():
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to a worker process.*lock"):
        parallel_apply(lambda x: lock.locked(), np.arange(5), **ISOLATED)
    assert len(pids(**ISOLATED)) == 2


def test_function_that_cannot_be_loaded():
    class Bad:
        def __init__(self, text="cannot be made there"):
            self.text = text

        def __reduce__(self):
            return (int, (self.text,))

        def __call__(self, x):
            return x

    with pytest.raises(ValueError, match="cannot be made there") as caught:
        parallel_apply(Bad(), np.arange(5), **ISOLATED)
    assert "loading the function" in caught.value.__notes__[0]
    assert len(pids(**ISOLATED)) == 2


def test_exception_that_cannot_be_pickled():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} {b}")
            self.lock = threading.Lock()

    def f(x):
        raise Odd(1, 2)

    with pytest.raises(parwise.RemoteError, match=r"Odd: 1 2") as caught:
        parallel_apply(f, np.arange(5), **ISOLATED)
    assert caught.value.type_name.endswith("Odd")


def test_result_that_cannot_be_pickled():
    with pytest.raises(TypeError, match="lock"):
        parallel_apply(lambda x: threading.Lock(), np.arange(5), **ISOLATED)


@pytest.fixture
def small_pool():
    pool = WorkerPool(slot_bytes=8192)
    yield pool
    pool.stop()


@pytest.mark.parametrize("memfd", [True, False])
def test_either_kind_of_segment(monkeypatch, small_pool, memfd):
    """The fallback for systems without memfd does the same work, with slots of any size."""
    made = []
    create = shared_memory.create_fd
    if not memfd:
        others.append("resource tracker")  # a process that multiprocessing keeps for shared memory

    def create_fd(nbytes):
        made.append(nbytes)
        return create(nbytes, memfd=memfd)

    monkeypatch.setattr(handle, "create_fd", create_fd)
    monkeypatch.setattr(serialization, "create_fd", create_fd)
    monkeypatch.setattr(processes, "default_pool", lambda: small_pool)
    big = np.random.default_rng(0).standard_normal(10_000)
    for shape in ((40, 3), (5, 700), (3, 5000)):
        a = np.random.default_rng(0).standard_normal(shape)
        got = parallel_apply(lambda x: np.append(x, big[5]), a, **ISOLATED)
        assert_same(got, loop(lambda x: np.append(x, big[5]), a))
    assert len(made) == 5


def test_segment_is_sealed_and_left_alone():
    fd = shared_memory.create_fd(segment_bytes(4096))
    try:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 1)
        ours, theirs = Slots(fd, 4096), Slots(fd, 4096)
        ours.inputs[1][:3] = b"abc"
        view = np.frombuffer(theirs.inputs[1], np.uint8)
        theirs.leave_input(1)
        ours.inputs[1][:3] = b"xyz"
        assert view[:3].tobytes() == b"abc"
        assert bytes(theirs.inputs[1][:3]) == b"xyz"
    finally:
        os.close(fd)


def test_missing_interpreter(monkeypatch, small_pool):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ParwiseError, match="sys.executable"):
        processes_run_with(small_pool, monkeypatch)


def processes_run_with(pool, monkeypatch):
    monkeypatch.setattr(processes, "default_pool", lambda: pool)
    return parallel_apply(np.sum, np.ones((3, 3)), **ISOLATED)


def test_large_argument_and_empty_results():
    """Results of no bytes come in no piece."""
    a = np.ones((6, 300_000))
    assert parallel_apply(lambda x: x[:0], a, **ISOLATED).shape == (6, 0)
    assert parallel_apply(lambda x: (x[:0], x[:0]), a, **ISOLATED)[1].shape == (6, 0)


def test_many_small_arrays_in_arguments():
    many = [np.full(3, k) for k in range(20_000)]
    assert parallel_apply(lambda x, m: m[int(x)][0], np.arange(7), args=(many,), **ISOLATED).tolist() == list(range(7))
    assert len(parallel_apply(lambda x: tuple(range(20_000)), np.arange(3), **ISOLATED)) == 20_000


def test_result_that_cannot_be_pickled_is_blamed_on_its_own_element():
    def f(x):
        if x == 20:
            time.sleep(0.2)
            raise ValueError("twenty")
        return (k for k in ()) if x == 50 else x

    with pytest.raises(ValueError, match="twenty"):
        parallel_apply(f, np.arange(60), **ISOLATED)


def test_element_that_cannot_be_unpickled():
    class Mine:
        def __reduce__(self):
            return (int, ("not a number",))

    a = np.array([Mine() for _ in range(4)], dtype=object)
    with pytest.raises(ValueError, match="not a number"):
        parallel_apply(lambda x: 1, a, **ISOLATED)


def test_death_while_sending_results():
    class Last:
        def __reduce__(self):
            os._exit(7)

    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(lambda x: Last(), np.arange(6.0).reshape(2, 3), axis=(0, 1), **ISOLATED)
    assert caught.value.exitcode == 7
    assert caught.value.index == (0, 0)


def test_worker_that_died_idle_is_replaced():
    first = pids(**ISOLATED)
    link = default_pool().workers[1]
    poll = select.poll()
    poll.register(link.pidfd, select.POLLIN)
    os.kill(link.pid, signal.SIGKILL)
    assert poll.poll(5000)
    second = pids(**ISOLATED)
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
    with pytest.raises(KeyboardInterrupt):
        processes_run_with(small_pool, monkeypatch)
    monkeypatch.undo()
    assert processes_run_with(small_pool, monkeypatch).tolist() == [3.0, 3.0, 3.0]


def test_function_that_reuses_its_result(eager):
    buffer = np.empty(2)
    got = parallel_apply(lambda x: np.add(x, 1, out=buffer), np.zeros((40, 2)), workers=2, verify=True)
    assert_same(got, np.ones((40, 2)))
    wide = np.empty((5, 2))
    a = np.arange(80.0).reshape(40, 2)
    got = parallel_apply(lambda b: np.add(b, 1, out=wide), a, vectorized=True, chunk=5, workers=2, verify=True)
    assert_same(got, a + 1)


def test_workers_at_no_blas_all_go_on_working():
    """Watching for BLAS threads must not take a worker's own thread for one."""

    def f(x):
        watch.suspicious = True
        with watch:
            sum(range(2000))
        return watch.busy

    watch = ThreadWatch()
    assert not parallel_apply(f, np.arange(40), **ISOLATED, verify=False)[5:].any()


@pytest.mark.parametrize("blocks", [False, True])
def test_caller_takes_back_what_workers_are_too_slow_for(eager, monkeypatch, blocks):
    """Copying can cost more than the function: then the caller does the rest itself."""
    here = os.getpid()
    too_slow, after = [], []

    class Race(processes.SlowWorkers):
        def too_slow(self):
            too_slow.extend([1] * (self._dispatcher.computed > 20))
            return bool(too_slow)

    monkeypatch.setattr(processes, "SlowWorkers", Race)
    a = np.random.default_rng(3).standard_normal((4000, 30))
    options = {"vectorized": True, "chunk": 10} if blocks else {}

    def f(x):
        if os.getpid() == here and too_slow:
            after.append(1)
        return np.sort(x, axis=-1)

    assert_same(parallel_apply(f, a, workers=2, **options), np.sort(a, axis=-1))
    assert after
    assert_same(parallel_apply(f, a, workers=2, isolate=True, **options), np.sort(a, axis=-1))


@pytest.mark.parametrize(
    "options", ["-I -OO -b -X dev", "-E -s -W ignore::UserWarning -q", "-X utf8=1 -X int_max_str_digits=5000", "-P -bb"]
)
def test_workers_have_the_callers_options(options):
    """Those of its interpreter; but the working directory is on no worker's path in any case."""
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


@pytest.mark.parametrize("how", [{"isolate": True}, {}])
def test_dtypes_that_hold_types_of_ones_own(how):
    class CallRecord(np.record):
        pass

    dtypes = [np.dtype((CallRecord, [("a", "f8"), ("b", "i4")])), np.dtype("f8", metadata={"unit": CallRecord})]

    for dtype in dtypes:

        def f(x, dtype=dtype):
            time.sleep(0.002)
            return np.zeros(3, dtype)

        got = parallel_apply(f, np.arange(40.0), workers=2, **how)
        assert got.dtype == dtype
        assert got.dtype.type is dtype.type
        assert got.tobytes() == bytes(40 * 3 * dtype.itemsize)
