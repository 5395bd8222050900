"""Arrays that workers read, and results that they write, in the caller's memory: right bits, and never elsewhere."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import parwise
from parwise import WorkerDiedError, parallel_apply
from parwise._core.call import Call
from parwise._core.inputs.arrays import InputArray
from parwise._executors.processes import runner as processes
from parwise._workers.direct import job as direct
from parwise._workers.direct.access import CallerMemory
from parwise._workers.direct.permission import Secret
from parwise._workers.direct.undying import Undying
from parwise._workers.pool import worker_handle

from ..support.functions import ISOLATED
from ..support.gate import wait_for
from ..support.internals import Job, make_call, resolve
from ..support.oracle import assert_same, blocks, loop
from ..support.scripts import run_script
from ..support.strategies import arrays, axes

ROW = 30_000
A = np.random.default_rng(0).standard_normal((12, ROW))
SECRET = b"0123456789abcdef"

secret = Secret(SECRET)
pytestmark = pytest.mark.skipif(
    not CallerMemory(os.getpid(), secret.address, SECRET).is_open,
    reason="this machine forbids process_vm_readv, or PARWISE_DIRECT=0 is set",
)


@pytest.fixture
def everywhere(monkeypatch):
    """Direct transfer also where a copy by the caller would be cheaper."""
    monkeypatch.setattr(direct, "DIRECT_BYTES", 1)
    monkeypatch.setattr(direct, "PIECE_BYTES", 1)


@pytest.fixture
def short_parts(everywhere, monkeypatch):
    """Long tasks are computed in parts of a few elements."""
    real = Call.elements_that_fit
    monkeypatch.setattr(Call, "elements_that_fit", lambda call, slot_bytes: min(3, real(call, slot_bytes)))


@pytest.fixture
def no_chunks(monkeypatch):
    """Fail if an argument passes through the slots in chunks."""
    monkeypatch.setattr(worker_handle.WorkerHandle, "_argument_chunks", None)


def after(row):
    """A function of an element whose bits depend on its layout."""
    with np.errstate(all="ignore"):
        return np.cumsum(row) * row.dot(row) if row.ndim == 1 and row.dtype.kind in "fc" else row.copy()


# What workers get and return.


@given(data=st.data())
def test_bits_of_every_layout(everywhere, data):
    a = data.draw(arrays(max_dims=4, max_side=6))
    axis = data.draw(axes(a.ndim))
    assert_same(parallel_apply(after, a, axis=axis, **ISOLATED), loop(after, a, axis=axis))


@given(data=st.data())
def test_bits_of_parts(short_parts, data):
    """Long tasks are computed part by part; one result may be unlike the others."""
    a = data.draw(arrays(min_dims=2, max_side=40))
    odd = data.draw(st.integers(0, 60))

    def f(row, number):
        return row.copy() if number != odd else row.astype(object)

    numbers = np.arange(len(a))
    assert_same(parallel_apply(f, a, numbers, **ISOLATED), loop(f, a, numbers))


NUMBERS = [float, int, bool, complex, np.float32, np.int8, np.uint64, np.float64, np.complex64, str, np.datetime64]


@given(data=st.data())
def test_bits_of_numbers_of_parts(short_parts, data):
    """Numbers are written one part after another too; some of another kind may change the dtype of all."""
    a = np.arange(data.draw(st.integers(2, 40)) * 3.0).reshape(-1, 3)
    first, other = (data.draw(st.sampled_from(NUMBERS)) for _ in range(2))
    odd, count = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 12))

    def number(kind, value):
        return kind(value, "s") if kind is np.datetime64 else kind(value)

    def f(row, index):
        return number(other if odd <= index < odd + count else first, int(row[1]))

    indices = np.arange(len(a))
    try:
        want = loop(f, a, indices)
    except Exception as error:
        with pytest.raises(type(error)):
            parallel_apply(f, a, indices, **ISOLATED)
    else:
        assert_same(parallel_apply(f, a, indices, **ISOLATED), want)


@pytest.mark.parametrize("kind", [float, int, bool, np.float32])
def test_long_tasks_of_numbers(short_parts, small_tasks, kind):
    a = np.random.default_rng(1).integers(0, 2, (600, 50)) * 1.0
    f = lambda row: kind(row[3])  # noqa: E731
    with parwise.report() as r:
        assert_same(parallel_apply(f, a, **ISOLATED), loop(f, a))
    assert max(one["elements"] / one["tasks"] for one in r.to_dict()["calls"][0]["per_worker"]) > 3


@pytest.mark.parametrize("result", [float, np.copy])
def test_tasks_of_small_elements_are_long_too(result):
    """1,000 elements of 1 kB were a task, which took a worker 1 ms, and the next one came 7 ms later."""
    job = Job(make_call(lambda row: result(row[3]), (np.ones((3000, 125)),), settings=resolve({"workers": 2})))
    job.open()
    job.compute_and_accept(job.queue.next_task())
    worker = types.SimpleNamespace(direct=True)
    assert direct.DirectJob(job).capacity(worker) == direct.TASK_BYTES // 1000 > job.queue.capacity
    worker.direct = False
    assert direct.DirectJob(job).capacity(worker) is None


def test_elements_without_bytes(everywhere):
    a = np.ones((40, 0))
    assert_same(parallel_apply(np.sum, a, **ISOLATED), loop(np.sum, a))


def test_long_tasks_of_many_parts(short_parts, small_tasks):
    """Every dtype of number, several inputs and results, in tasks of up to all elements."""
    for dtype in ("f8", ">f8", "f4", "c16", "i2", "?", "M8[s]", "U3"):
        a = np.random.default_rng(1).integers(0, 100, (600, 50)).astype(dtype)
        b = np.asfortranarray(np.random.default_rng(2).standard_normal((600, 20)))
        both = lambda x, y: (x[::-1].copy(), y * 2)  # noqa: E731
        with parwise.report() as r:
            assert_same(parallel_apply(both, a, b, **ISOLATED), loop(both, a, b))
        long = max(one["elements"] / one["tasks"] for one in r.to_dict()["calls"][0]["per_worker"]) > 3
        assert long == (dtype != ">f8")  # which NumPy makes native, so that such results are not written as they are


def test_error_in_a_part(short_parts):
    """What was computed before it in the same task does not matter: the error of the lowest index is raised."""

    def f(row, number):
        if number in (300, 450):
            raise ValueError(int(number))
        return row * 2

    with pytest.raises(ValueError, match="300"):
        parallel_apply(f, np.ones((500, 50)), np.arange(500), **ISOLATED)
    with pytest.warns(RuntimeWarning, match="2 of 500 elements, which are gaps now: 300, 450"):
        got = parallel_apply(f, np.ones((500, 50)), np.arange(500), errors="ignore", **ISOLATED)
    want = np.full((500, 50), 2.0)
    want[[300, 450]] = np.nan
    assert_same(got, want)


def test_prints_of_a_task_of_many_parts(short_parts, capfd):
    parallel_apply(lambda row: (print(int(row[0])), row)[1], np.arange(200.0)[:, None] + np.zeros(20), **ISOLATED)
    assert capfd.readouterr().out.split() == [str(k) for k in range(200)]


@given(data=st.data())
def test_bits_of_blocks(everywhere, data):
    a = data.draw(arrays(min_dims=2, max_dims=3))
    axis = data.draw(st.integers(0, a.ndim - 1))
    hypothesis.assume(a.shape[axis] > 1)
    chunk = data.draw(st.integers(1, a.shape[axis]))
    bounds = [(b.start, b.stop) for b in parwise.plan(a, axis=axis, chunk=chunk)]
    got = parallel_apply(lambda x: x.copy(), a, axis=axis, vectorized=True, chunk=chunk, **ISOLATED)
    assert_same(got, blocks(lambda x: x.copy(), a, bounds, axis))


@pytest.mark.parametrize("row_bytes", [2**18, 2**22])
def test_report_tells_which_way_arrays_went(row_bytes, no_chunks):
    """An element larger than a slot does not pass through it in chunks."""
    a = np.random.default_rng(0).standard_normal((8, row_bytes // 8))
    with parwise.report() as r:
        assert_same(parallel_apply(np.sort, a, **ISOLATED), np.sort(a))
    assert r.calls[0].bytes_direct == a.nbytes
    assert r.calls[0].bytes_staged == 0
    assert "of arguments, read by the workers themselves" in str(r)


@pytest.mark.skipif(os.environ.get("PARWISE_DIRECT") == "always", reason="PARWISE_DIRECT=always copies nothing")
def test_what_is_copied_for_workers():
    """Short pieces, few bytes, objects, and what is not in memory."""
    for a in (np.ones((40, 3)), np.asfortranarray(A), np.array([list(range(3))] * 5, object)):
        with parwise.report() as r:
            parallel_apply(np.sum, a, axis=0, **ISOLATED)
        assert r.calls[0].bytes_direct == 0
        assert r.calls[0].bytes_staged > 0


def test_readonly_broadcast_and_reversed_inputs():
    readonly = A.copy()
    readonly.flags.writeable = False
    for a in (readonly, np.broadcast_to(A[0], A.shape), A[::-1], A[:, ::-1], A[::3]):
        assert_same(parallel_apply(after, a, **ISOLATED), loop(after, a))
    with pytest.raises(ValueError, match="read-only"):
        parallel_apply(lambda row: row.fill(0), readonly, **ISOLATED)


def test_writes_of_the_function_stay_in_the_worker():
    a = A.copy()

    def f(row):
        row *= 2
        return row

    assert_same(parallel_apply(f, a, **ISOLATED), A * 2)
    assert_same(a, A)


def test_out_that_overlaps_and_strided_out():
    a, wide = A.copy(), np.zeros((len(A), 2 * ROW))
    assert parallel_apply(np.sort, a, out=a, **ISOLATED) is a
    assert_same(a, np.sort(A))
    parallel_apply(np.sort, A, out=wide[:, ::2], **ISOLATED)
    assert_same(wide[:, ::2].copy(), np.sort(A))
    assert not wide[:, 1::2].any()


def test_function_that_keeps_its_argument():
    kept = []

    def f(row):
        kept.append(row)
        return np.array([one[7] for one in kept] + [0.0] * (40 - len(kept)))

    a = np.random.default_rng(0).standard_normal((40, ROW))
    got = parallel_apply(f, a, isolate=True, workers=1)
    assert_same(got, np.tril(np.broadcast_to(a[:, 7], (40, 40))))


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


# Workers that die, stop, or come too late.


def write_half(then, at=5):
    """Return a `setup` with which a worker calls `then` when half of element `at`, or of any, is written."""

    def setup():
        from parwise._workers.direct import access, transfer

        real, whole = access.CallerMemory.write, transfer.DirectTransfer.write

        def write(self, address, data):
            if number[0]:
                real(self, address, np.full(len(data) // 2, 255, np.uint8))
                then()
            real(self, address, data)

        def note(self, outcome, lo, hi, *rest):
            number[0] = at is None or lo <= at < hi
            return whole(self, outcome, lo, hi, *rest)

        number = [False]
        access.CallerMemory.write, transfer.DirectTransfer.write = write, note

    return setup


@pytest.fixture
def die_once(tmp_path, monkeypatch):
    monkeypatch.setattr(Call, "elements_that_fit", lambda *_: 1)  # else elements are written together with element 5
    marker = tmp_path / "died"

    def die():
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    yield write_half(die)
    assert marker.exists()


def test_worker_that_dies_in_the_middle_of_a_write(die_once):
    with pytest.raises(WorkerDiedError) as caught:
        parallel_apply(np.sort, A, setup=die_once, **ISOLATED)
    assert caught.value.signal == signal.SIGKILL
    assert caught.value.index == 5
    assert_same(parallel_apply(np.sort, A, **ISOLATED), np.sort(A))


def test_element_that_was_half_written_is_computed_again(die_once):
    assert_same(parallel_apply(np.sort, A, setup=die_once, retries=1, **ISOLATED), np.sort(A))


def test_element_that_was_half_written_is_a_gap(die_once):
    with pytest.warns(RuntimeWarning, match="no result for 1 of 12 elements, which are gaps now: 5"):
        got = parallel_apply(np.sort, A, setup=die_once, errors="ignore", **ISOLATED)
    want = np.sort(A)
    want[5] = np.nan
    assert_same(got, want)


def test_worker_that_dies_before_it_is_told_of_a_task(monkeypatch):
    """No task is lost with it."""
    killed = []
    real = worker_handle.WorkerHandle._tell_targets

    def tell(self, *rows):
        if not killed:
            killed.append(self.pid)
            self.kill()
            assert self._ends_within(10)
        real(self, *rows)

    monkeypatch.setattr(worker_handle.WorkerHandle, "_tell_targets", tell)
    out = np.zeros_like(A)
    assert_same(parallel_apply(np.sort, A, out=out, retries=1, **ISOLATED), np.sort(A))
    assert killed


def test_worker_that_stops_within_a_write_is_killed_before_the_call_ends(tmp_path):
    """The element 0 raises meanwhile; no worker may write to `out` afterwards."""
    begun, out = tmp_path / "begun", np.zeros_like(A)

    def stop():
        begun.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)

    def f(row, number):
        if number == 0:
            wait_for(begun)
            raise ZeroDivisionError
        return np.sort(row)

    with pytest.raises(ZeroDivisionError):
        parallel_apply(f, A, np.arange(12), out=out, setup=write_half(stop, None), **ISOLATED)
    assert has_ended(int(begun.read_text()))
    out[:] = 7.0
    assert_same(parallel_apply(np.sort, A, **ISOLATED), np.sort(A))
    assert (out == 7.0).all()


def test_late_results_are_not_written(tmp_path):
    """A worker that computes when the call ends finds that nobody wants its results."""
    begun, go, done = tmp_path / "begun", tmp_path / "go", tmp_path / "done"
    out = np.zeros_like(A)

    def f(row, number):
        if number == 0:
            wait_for(begun)
            raise ZeroDivisionError
        if number > 1:  # the results of 1 tell where others belong
            begun.touch()
            wait_for(go)
            done.touch()
        return row + 1

    with pytest.raises(ZeroDivisionError):
        parallel_apply(f, A, np.arange(12), out=out, **ISOLATED)
    out[:] = 7.0
    go.touch()
    wait_for(done)
    assert_same(parallel_apply(np.sort, A, **ISOLATED), np.sort(A))  # after all answers of the call before
    assert (out == 7.0).all()


@pytest.mark.parametrize("moment", ["before", "within"])
def test_interrupt(tmp_path, moment):
    """After Ctrl-C no worker writes to `out`, whether it was in a write or before one."""
    begun, out = tmp_path / "begun", np.zeros_like(A)

    def stay():
        begun.touch()
        time.sleep(60)

    def f(row, number):
        if number > 1 and moment == "before":
            stay()
        return np.sort(row)

    def interrupt():
        wait_for(begun)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    setup = write_half(stay if moment == "within" else int, None)
    with pytest.raises(KeyboardInterrupt):
        parallel_apply(f, A, np.arange(12), out=out, setup=setup, **ISOLATED)
    thread.join()
    out[:] = 7.0
    assert_same(parallel_apply(np.sort, A, **ISOLATED), np.sort(A))
    assert (out == 7.0).all()


def test_storm_of_interrupts_and_kills():
    """At random moments, with a checking allocator: right bits or an error, and no write after a call."""
    script = Path(__file__).parents[1] / "support" / "direct_storm.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning", str(script), "60", "20", "1"],
        env={**os.environ, "PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert "'KeyboardInterrupt': " in done.stdout


def test_fork_of_the_caller():
    """A process that the caller forks during a call neither takes claims nor waits, and sees no later results."""
    status = []

    def fork(done, total):
        if not status:
            if (pid := os.fork()) == 0:
                os._exit(0 if processes.default_pool().workers == [] else 1)
            status.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    assert_same(parallel_apply(np.sort, A, progress=fork, **ISOLATED), np.sort(A))
    assert status == [0]


def test_undying_worker_keeps_the_array():
    undying, sleeper = Undying(), subprocess.Popen(["sleep", "60"])
    pidfd = os.pidfd_open(sleeper.pid)
    try:
        undying.keep(pidfd, [A])
        undying.release()
        assert len(undying._kept) == 1
        sleeper.kill()
        sleeper.wait()
        undying.release()
        assert undying._kept == []
    finally:
        sleeper.kill()
        os.close(pidfd)


# Memory that cannot be reached.


SECRETMEM = 447


def secret_memory(nbytes):
    """Memory that no other process can read, not even by a system call of the kernel."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SECRETMEM, 0)
    if fd < 0:
        pytest.skip("this machine forbids memfd_secret")
    libc.mmap.restype = ctypes.c_void_p
    os.ftruncate(fd, nbytes)
    address = libc.mmap(None, ctypes.c_size_t(nbytes), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    if address in (None, 2**64 - 1):
        pytest.skip("this machine forbids to map memory of memfd_secret")
    return (ctypes.c_ubyte * nbytes).from_address(address)


def test_memory_that_workers_cannot_read_or_write():
    memory = secret_memory(-(-2 * A.nbytes // 4096) * 4096)
    a, out = np.frombuffer(memory, float, 2 * A.size).reshape(2, *A.shape)
    a[:] = A
    with parwise.report() as r:
        assert_same(parallel_apply(np.sort, a, **ISOLATED), np.sort(A))
    assert r.calls[0].bytes_staged > 0
    parallel_apply(np.sort, A, out=out, **ISOLATED)
    assert_same(out.copy(), np.sort(A))


def test_part_of_the_memory_cannot_be_read(short_parts):
    """In the middle of a long task: what was computed is kept, the rest is copied for the workers."""
    calls = []
    real = CallerMemory.read

    def setup():
        from parwise._workers.direct import access

        def read(self, memory, offset, pieces):
            calls.append(1)
            if len(calls) > 20:
                raise OSError(14, "Bad address")
            real(self, memory, offset, pieces)

        access.CallerMemory.read = read

    a = np.random.default_rng(0).standard_normal((500, 100))
    with parwise.report() as r:
        assert_same(parallel_apply(np.sort, a, setup=setup, **ISOLATED), np.sort(a))
    assert r.calls[0].bytes_staged > 0
    assert r.calls[0].bytes_direct > 0


def test_another_program_in_the_place_of_the_caller():
    """It has the same process id, but not the secret in its memory."""
    code = (
        "import ctypes, os, sys; b = ctypes.create_string_buffer(b'0123456789abcdef'); "
        "print(ctypes.addressof(b), flush=True); sys.stdin.readline(); "
        "os.execv(sys.executable, [sys.executable, '-c', 'print(1, flush=True); input()'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as other:
        memory = CallerMemory(other.pid, int(other.stdout.readline()), SECRET)
        assert memory.is_open
        other.stdin.write("\n")
        assert other.stdout.readline() == "1\n"
        assert not memory.is_there
        other.stdin.write("\n")
        other.wait()
        assert not memory.is_open


SCRIPT = """
import ctypes, struct
import numpy as np, parwise
{before}
a = np.random.default_rng(0).standard_normal((12, 30_000))
with parwise.report() as r:
    got = parwise.parallel_apply(np.sort, a, isolate=True, workers=2)
assert got.tobytes() == np.sort(a).tobytes()
print(r.calls[0].bytes_direct, r.calls[0].bytes_staged)
"""

# A filter of system calls: process_vm_readv and process_vm_writev return EPERM.
SECCOMP = """
import platform
first = {"x86_64": 310, "aarch64": 270}[platform.machine()]
steps = [(0x20, 0, 0, 0), (0x35, 0, 2, first), (0x25, 1, 0, first + 1), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, program, 0, 0) != 0:
    print("forbidden"); raise SystemExit
"""


def test_system_calls_that_are_forbidden():
    """Arrays are copied as before, quietly."""
    done = run_script(SCRIPT.format(before=SECCOMP))
    assert done.stderr == ""
    if done.stdout == "forbidden\n":
        pytest.skip("this machine forbids seccomp filters")
    assert done.stdout == f"0 {A.nbytes}\n"


@pytest.mark.parametrize("value", ["0", "1"])
def test_switch(value):
    done = run_script(SCRIPT.format(before=""), env={**os.environ, "PARWISE_DIRECT": value})
    assert done.stderr == ""
    assert done.stdout == (f"0 {A.nbytes}\n" if value == "0" else f"{A.nbytes} 0\n")


def test_pieces_cover_each_byte_once():
    """Also of arrays whose mapped axes cannot be made one."""
    base = np.arange(4 * 5 * 6 * 7, dtype="i4").reshape(4, 5, 6, 7)
    for a, axis in ((base, (0, 2)), (base[:, ::2], (0, 1)), (base[::-1, :, ::-1], (2, 0)), (base.T, (1, 3))):
        one = InputArray(a, axis, False)
        count = int(np.prod(one.lengths))
        layout = one.layout(count)
        memory = np.zeros(layout.below + layout.above, np.uint8)
        reach = CallerMemory(os.getpid(), base.ctypes.data, SECRET)
        for pieces in one.place.pieces((1,), count, layout._replace(shape=(count - 1, *layout.shape[1:]))):
            reach.read(memory, layout.below, pieces)
        want = np.zeros_like(memory)
        one.copy_to(layout.view(want, layout.below, count - 1), 1, count)
        assert memory.tobytes() == want.tobytes()
