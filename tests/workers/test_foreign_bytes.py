"""Bytes that parwise has not sent, on its sockets and in its slots: one clear error, and no unpickle of them."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parwise import ParwiseError, Pool, parallel_apply, parallel_map
from parwise._executors.processes import runner as processes
from parwise._workers.pickling.payload import Payload
from parwise._workers.pool import fork_server_handle, worker_handle
from parwise._workers.protocol import COOKIE_BYTES, Channel, ForeignBytesError, socket_pair

from ..support.examples import examples
from ..support.foreign_bytes import MARKER, MARKING, OUTCOMES, damage, overwriting, writing
from ..support.internals import WorkerPool

TOLD = "bytes that parwise did not send"
ISOLATED = {"isolate": True, "workers": 2}
#: A call that takes longer hangs.
SECONDS = 60


BODIES = [MARKING, pickle.dumps(("ready",)), pickle.dumps(("done", 1, 0, b"", [], [])), b"text"]
KNOWN = [len(body) for body in BODIES]


def framed(cookie, body, length=None):
    return cookie + (len(body) if length is None else length).to_bytes(4, "little") + body


def packets(cookie):
    """Packets that are no messages: text, pickles, cut and longer messages, messages with another secret."""
    bodies = st.sampled_from(BODIES)
    others = st.binary(min_size=COOKIE_BYTES, max_size=COOKIE_BYTES).filter(lambda one: one != cookie)
    cuts, lengths = st.integers(0, COOKIE_BYTES + 3), st.integers(0, 2**32 - 1).filter(lambda n: n not in KNOWN)
    return st.one_of(
        st.binary(min_size=1, max_size=300),
        bodies,
        st.builds(framed, others, bodies),
        st.builds(framed, st.just(cookie), bodies, lengths),
        st.builds(lambda body, n: framed(cookie, body)[: n + 1], bodies, cuts),
        st.builds(lambda body, n: framed(cookie, body)[: -n - 1], bodies, st.integers(0, 3)),
        st.builds(lambda body, n: framed(cookie, body) + bytes(n + 1), bodies, st.integers(0, 2**16)),
        st.just(framed(cookie, MARKING + bytes(2**16))),  # the receiver takes less
    )


@contextlib.contextmanager
def in_time():
    """No call may hang, and nothing may be unpickled."""

    def end(*_):
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not os.path.exists(MARKER)


def fails_once(call, expected):
    """`call` raises one clear error, and is right when it is made again."""
    with in_time(), pytest.raises(ParwiseError, match=TOLD):
        call()
    assert_right(call, expected)


def may_fail_once(call, expected):
    """`call` raises one clear error, or is right; it is right when it is made again."""
    try:
        assert_right(call, expected)
    except ParwiseError as error:
        assert TOLD in str(error)  # noqa: PT017 - it need not be raised
        assert_right(call, expected)


def assert_right(call, expected):
    with in_time():
        assert call() == expected


class Taps:
    """The other ends of a pool's sockets, into which the tests write as a worker or a fork server would."""

    def __init__(self, pool, patch):
        self.pool = pool
        self.ends = {}
        real_start, real_request = fork_server_handle.start, worker_handle.WorkerHandle.request_fork

        def start(control, variables):
            self._keep("fork server", control.fileno())
            return real_start(control, variables)

        def request_fork(worker, *rest):
            self._keep(worker.key, worker._worker_fds[0])
            real_request(worker, *rest)

        patch.setattr(fork_server_handle, "start", start)
        patch.setattr(worker_handle.WorkerHandle, "request_fork", request_fork)

    def _keep(self, name, fd):
        if name in self.ends:
            self.ends.pop(name).close()
        self.ends[name] = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=os.dup(fd))

    def write(self, end, packet):
        """Write to one end of a socket; workers are up and idle."""
        worker = self.pool.workers[0]
        sock = {
            "worker to caller": lambda: self.ends[worker.key],
            "caller to worker": lambda: worker.channel.sock,
            "fork server to caller": lambda: self.ends["fork server"],
            "caller to fork server": lambda: self.pool.fork_server.channel.sock,
        }[end]()
        sock.send(packet)

    def close(self):
        for end in self.ends.values():
            end.close()


@pytest.fixture
def taps():
    pool = WorkerPool(slot_bytes=8192)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "default_pool", lambda: pool)
        taps = Taps(pool, patch)
        yield taps
        pool.stop()
        taps.close()


FUZZ = examples(15)  # most begin with new processes


@examples(300)
@given(data=st.data(), descriptors=st.integers(0, 3))
def test_channel_refuses(data, descriptors):
    cookie = os.urandom(COOKIE_BYTES)
    one, other = socket_pair()
    writer, reader = Channel(one, cookie), Channel(other, cookie)
    try:
        open_files = set(os.listdir("/proc/self/fd"))
        socket.send_fds(one, [data.draw(packets(cookie))], [0] * descriptors)
        with in_time(), pytest.raises(ForeignBytesError):
            reader.receive()
        assert set(os.listdir("/proc/self/fd")) <= open_files  # garbage of earlier tests may be collected here
        writer.send("done", 7)
        assert reader.receive() == (("done", 7), [])
        reader.refuse()
        with pytest.raises(ForeignBytesError):
            writer.receive()
    finally:
        writer.close()
        reader.close()


ENDS = ["worker to caller", "caller to worker", "fork server to caller", "caller to fork server"]


@pytest.mark.parametrize("end", ENDS)
@FUZZ
@given(data=st.data())
def test_idle_processes_that_get_foreign_bytes(end, taps, data):
    """The next call raises, or finds that the process has ended by then, and replaces it."""

    def call():
        return parallel_map(lambda k: {"x": k}, range(50), **ISOLATED)

    expected = [{"x": k} for k in range(50)]
    assert_right(call, expected)
    for packet in data.draw(st.lists(packets(taps.pool._cookie), min_size=1, max_size=3)):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended at the first one
            taps.write(end, packet)
    if end.endswith("to caller"):
        fails_once(call, expected)
    else:
        may_fail_once(call, expected)


@pytest.mark.parametrize("end", ENDS)
def test_empty_packet_is_the_end_of_a_process(end, taps):
    call = lambda: parallel_map(abs, range(50), **ISOLATED)  # noqa: E731
    assert_right(call, list(range(50)))
    taps.write(end, b"")
    with in_time(), contextlib.suppress(ParwiseError):
        assert call() == list(range(50))
    assert_right(call, list(range(50)))


@pytest.mark.parametrize("how", ["map", "pool", "ignore", "retries"])
@FUZZ
@given(data=st.data())
def test_function_that_writes_to_every_socket(how, taps, data):
    foreign = data.draw(st.lists(packets(taps.pool._cookie), min_size=1, max_size=3))

    write = writing(foreign)
    options = {"ignore": {"errors": "ignore"}, "retries": {"retries": 3}}.get(how, {})
    if how != "pool":
        with in_time(), pytest.raises(ParwiseError, match=TOLD):
            parallel_map(write, range(6), **ISOLATED, **options)
        assert_right(lambda: parallel_map(abs, range(6), **ISOLATED), list(range(6)))
        return
    with Pool(workers=1) as pool, in_time():
        with pytest.raises(ParwiseError, match=TOLD):
            pool.submit(write, 1).result(SECONDS)
        assert pool.submit(abs, -1).result(SECONDS) == 1


#: What overwrites pickles: bits that are flipped somewhere, or another pickle.
DAMAGE = st.one_of(
    st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=40).filter(any)), st.just((0, MARKING))
)


@pytest.mark.parametrize("kind", OUTCOMES)
@FUZZ
@given(how=DAMAGE)
def test_outcomes_that_are_overwritten(kind, taps, how):
    with in_time(), pytest.raises(ParwiseError, match=TOLD):
        parallel_map(overwriting(kind, *how), range(3), **ISOLATED)
    call = OUTCOMES["objects"]
    assert_right(lambda: parallel_map(call, range(3), **ISOLATED), list(map(call, range(3))))


@pytest.mark.parametrize("length", [10, 30_000])
@FUZZ
@given(how=DAMAGE)
def test_items_that_are_overwritten(length, taps, how):
    items = [{"text": "x" * length, "number": k} for k in range(6)]
    real = worker_handle.WorkerHandle.send_task

    def send_task(worker, number, staged, *others):
        ((offset, nbytes, _),) = staged.offsets
        memory = worker.slots.inputs[staged.slot] if staged.large is None else memoryview(staged.large)
        damage(memory, offset, nbytes, *how)
        real(worker, number, staged, *others)

    with pytest.MonkeyPatch.context() as patch, in_time():
        patch.setattr(worker_handle.WorkerHandle, "send_task", send_task)
        with pytest.raises(ParwiseError, match=TOLD):
            parallel_map(lambda item: item["number"], items, **ISOLATED)
    assert_right(lambda: parallel_map(lambda item: item["number"], items, **ISOLATED), list(range(6)))


@pytest.mark.parametrize("length", [10, 3_000_000])
@FUZZ
@given(how=DAMAGE)
def test_submitted_calls_that_are_overwritten(length, taps, how):
    real = worker_handle.WorkerHandle.send_task

    def send_task(worker, number, staged, *others):
        memory = worker.slots.inputs[staged.slot] if staged.large is None else memoryview(staged.large)
        damage(memory, 0, sum(staged.offsets), *how)
        real(worker, number, staged, *others)

    with pytest.MonkeyPatch.context() as patch, in_time(), Pool(1) as pool:
        patch.setattr(worker_handle.WorkerHandle, "send_task", send_task)
        with pytest.raises(ParwiseError, match=TOLD):
            pool.submit(len, "x" * length).result()
        patch.undo()
        assert pool.submit(len, "x" * length).result() == length


@pytest.mark.parametrize("which", [0, 1, -1])
@FUZZ
@given(how=DAMAGE)
def test_functions_that_are_overwritten(which, taps, how):
    """A large one is in a file that workers map: state, function and the table of its arrays."""
    kept = {str(k): k for k in range(10_000)}
    real = Payload.write

    def write(payload, fd):
        real(payload, fd)
        if which >= 0:
            start, nbytes = payload.offsets[which], payload.buffers[which].nbytes
            part = bytearray(payload.buffers[which])
            damage(part, 0, nbytes, *how)
            os.pwrite(fd, part, start)

    real_pwrite = os.pwrite

    def pwrite(fd, data, offset):
        part = bytearray(data)
        damage(part, 0, len(part), *how)
        return real_pwrite(fd, part, offset)

    def call():
        return parallel_apply(lambda x: x + len(kept), np.arange(6.0), **ISOLATED).tolist()

    with pytest.MonkeyPatch.context() as patch, in_time():
        if which >= 0:
            patch.setattr(Payload, "write", write)
        else:  # the table is written behind the buffers
            patch.setattr(
                Payload, "write", lambda payload, fd: (real(payload, fd), patch.setattr(os, "pwrite", pwrite))
            )
        with pytest.raises(ParwiseError, match=TOLD):
            call()
    assert_right(call, [10_000.0 + k for k in range(6)])
