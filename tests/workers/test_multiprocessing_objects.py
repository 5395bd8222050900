"""Connections, sockets, locks, queues and shared memory of multiprocessing reach workers, or are refused at once."""

from __future__ import annotations

import ctypes
import gc
import io
import mmap
import multiprocessing
import multiprocessing.connection
import operator
import os
import socket
from multiprocessing import resource_tracker

import numpy as np
import pytest

from parwise import Pool, RemoteError, parallel_apply, parallel_imap, parallel_map

from ..conftest import RUNNERS
from ..support.functions import ISOLATED
from ..support.scripts import run_script

spawn = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module", autouse=True)
def _tracker():
    """The process that removes semaphores of a dead process, and a block of shared memory, stay until the end."""
    resource_tracker.ensure_running()
    spawn.RawArray("b", 1)


@pytest.fixture(params=["isolated", "processes", "threads", "serial", "pool"])
def local(request):
    """Options for executors of this machine."""
    return RUNNERS[request.param](request)


def tell(k, connection):
    connection.send(k)
    return k


def test_connection_as_argument(local):
    near, far = multiprocessing.Pipe()
    with near, far:
        assert parallel_map(tell, range(6), args=(near,), **local) == list(range(6))
        assert sorted(far.recv() for _ in range(6)) == list(range(6))
        assert not far.poll(0)


@pytest.mark.parametrize("end", [0, 1])
def test_connection_in_a_closure_is_closed_with_the_call(end):
    ends = multiprocessing.Pipe()
    near, far = ends[end], ends[1 - end]
    with far:
        assert parallel_map(lambda k: tell(k, near), range(4), **ISOLATED) == [0, 1, 2, 3]
        near.close()
        assert sorted(far.recv() for _ in range(4)) == [0, 1, 2, 3]
        with pytest.raises(EOFError):  # no worker holds the other end
            far.recv()


def test_connections_as_items(local):
    pairs = [multiprocessing.Pipe() for _ in range(7)]
    assert parallel_map(lambda pair: pair[1].send(pair[0]), list(enumerate(far for _, far in pairs)), **local)
    for k, (near, far) in enumerate(pairs):
        far.close()
        assert near.recv() == k
        with pytest.raises(EOFError):
            near.recv()
        near.close()


def test_sockets_as_items_of_a_stream():
    def serve():
        for k in range(6):
            near, far = socket.socketpair()
            far.settimeout(k + 1.0)
            nears.append(near)
            fars.append(far)
            yield far

    nears, fars = [], []
    sent = parallel_imap(lambda sock: (sock.send(b"hello"), sock.gettimeout())[1], serve(), **ISOLATED)
    assert list(sent) == [k + 1.0 for k in range(6)]
    for near, far in zip(nears, fars, strict=True):
        far.close()
        assert near.recv(9) == b"hello"
        assert near.recv(9) == b""
        near.close()


def test_more_descriptors_than_one_message_holds():
    pairs = [socket.socketpair() for _ in range(150)]

    def greet(k, socks):
        return sum(sock.send(b"x") for sock in socks)

    assert parallel_map(greet, [0], args=([two for _, two in pairs],), **ISOLATED) == [150]
    for one, two in pairs:
        assert one.recv(1) == b"x"
        one.close()
        two.close()


def open_pair(k):
    near, far = multiprocessing.Pipe()
    near.send(k)
    one, two = socket.socketpair()
    with one:
        one.send(b"%d" % k)
    return far, {"sock": two}


def test_descriptors_as_results(local):
    for k, (connection, box) in enumerate(parallel_map(open_pair, range(5), **local)):
        with connection, box["sock"] as sock:
            assert connection.recv() == k
            assert sock.recv(9) == b"%d" % k
    gc.collect()


def test_submitted_calls(pool):
    near, far = multiprocessing.Pipe()
    future = pool.submit(tell, 3, far)
    far.close()  # it has been sent
    assert future.result() == 3
    assert near.recv() == 3
    near.close()
    for k, (connection, box) in enumerate(pool.map(open_pair, range(3))):
        assert connection.recv() == k
        connection.close()
        box["sock"].close()


class Named(multiprocessing.connection.Connection):
    """A connection of a derived class, with state of its own."""

    def __init__(self, handle, name):
        super().__init__(handle)
        self.name = name

    def tell(self, what):
        self.send((self.name, what))


def test_connection_of_a_derived_class():
    near, far = multiprocessing.Pipe()
    named = Named(os.dup(far.fileno()), "me")
    with near, far, named:
        parallel_map(lambda k: named.tell(k), range(3), **ISOLATED)
        assert sorted(near.recv() for _ in range(3)) == [("me", k) for k in range(3)]


class Handle:
    """A descriptor, in a class of the user's own."""

    def __init__(self, fd):
        self.fd = fd


def reduce_handle(handle):
    return rebuild_handle, (multiprocessing.reduction.DupFd(handle.fd),)


def rebuild_handle(descriptor):
    return Handle(descriptor.detach())


def test_class_that_the_user_has_registered_with_multiprocessing(monkeypatch):
    reducers = multiprocessing.reduction.ForkingPickler._extra_reducers
    monkeypatch.setitem(reducers, Handle, reduce_handle)
    reader, writer = os.pipe()

    def f(handle):
        return os.write(handle.fd, b"x")

    assert parallel_map(f, [Handle(writer)] * 3, **ISOLATED) == [1] * 3
    assert os.read(reader, 9) == b"xxx"
    os.close(reader)
    os.close(writer)


def test_a_pool_that_other_calls_use(pool):
    near, far = multiprocessing.Pipe()
    with near, far:
        assert list(parallel_imap(tell, range(6), args=(near,), executor=pool)) == list(range(6))
        assert list(pool.imap(lambda ends: tell(*ends), [(k, near) for k in range(6)])) == list(range(6))
        assert sorted(far.recv() for _ in range(12)) == sorted(2 * list(range(6)))


def test_closed_connection_is_refused_before_any_work(tmp_path):
    near, far = multiprocessing.Pipe()
    near.close()
    far.close()
    with pytest.raises(TypeError, match=r"cannot be sent to a worker process: handle is closed"):
        parallel_map(lambda k: ((tmp_path / "work").touch(), far.send(k)), range(3), **ISOLATED)
    assert not (tmp_path / "work").exists()


def test_exception_with_a_connection():
    class Lost(Exception):
        def __init__(self):
            super().__init__("lost")
            self.ends = multiprocessing.Pipe()

    def lose(k):
        raise Lost

    with pytest.raises(RemoteError, match=r"Lost: lost"):
        parallel_map(lose, range(2), **ISOLATED)


def test_other_libraries_processes_are_refused_what_needs_a_descriptor(process_executor):
    near, far = multiprocessing.Pipe()
    with near, far, pytest.raises(TypeError, match=r"cannot be sent to the processes of ProcessPoolExecutor"):
        parallel_map(tell, range(3), args=(near,), executor=process_executor)
    with near, far, pytest.raises(TypeError, match=r"cannot be sent to the processes of ProcessPoolExecutor"):
        parallel_map(lambda k: spawn_lock.acquire(), range(3), executor=process_executor)


spawn_lock = spawn.Lock()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_locks(kind, local):
    lock, total = getattr(spawn, kind)(), spawn.RawValue("i", 0)

    def add(k):
        with lock:
            total.value += k
        return k

    assert parallel_map(add, range(40), **local) == list(range(40))
    assert total.value == sum(range(40))


def test_queues_events_and_shared_values(local):
    queues = [spawn.Queue(), spawn.SimpleQueue(), spawn.JoinableQueue()]
    event, barrier, value, array = spawn.Event(), spawn.Barrier(1), spawn.Value("i"), spawn.Array("d", 3)
    raw, memory = spawn.RawArray(ctypes.c_int, 30), spawn.Array("c", b"text", lock=False)

    def work(k):
        for queue in queues:
            queue.put(k)
        event.set()
        barrier.wait()
        with value.get_lock():
            value.value += 1
        with array.get_lock():
            array[k % 3] += k
        raw[k] = k
        return memory.value

    # The function is called once for each element: no comparison calls it again.
    assert parallel_map(work, range(30), **local) == [b"text"] * 30
    for queue in queues:
        assert sorted(queue.get() for _ in range(30)) == list(range(30))
        assert queue.empty()
        queue.close()
    assert event.is_set()
    assert value.value == 30
    assert list(array) == [sum(range(r, 30, 3)) for r in range(3)]
    assert list(raw) == list(range(30))
    queues[0].join_thread()
    queues[2].join_thread()


def test_arguments_of_an_initializer():
    def keep(*shared):
        global lock, value, queue
        lock, value, queue = shared

    def count(k):
        with lock:
            value.value += 1
        queue.put(k)
        return k

    value_here, queue_here = spawn.Value("i"), spawn.Queue()
    with Pool(2, initializer=keep, initargs=(spawn.Lock(), value_here, queue_here)) as pool:
        assert list(pool.map(count, range(20))) == list(range(20))
        assert pool.submit(count, 20).result() == 20
        assert parallel_map(count, range(20), executor=pool, isolate=True) == list(range(20))
    assert value_here.value == 41
    # All has left the workers, which have ended.
    assert sorted(queue_here.get() for _ in range(41)) == sorted([*range(20), *range(21)])
    queue_here.close()


class Heavy:
    """An object that takes a while to be pickled, by the thread of a queue."""

    def __reduce__(self):
        return sum, (range(10**6 + sum(range(10**6)) * 0),)


def test_what_was_put_into_a_queue_has_left_a_worker_that_ends():
    queue = spawn.Queue()
    with Pool(1) as pool:
        pool.submit(lambda queue: queue.put(Heavy()), queue).result()
    assert queue.get(timeout=9) == sum(range(10**6))
    queue.close()


def test_lock_that_nobody_else_keeps(mortal):
    assert mortal.submit(lambda lock: lock.acquire(timeout=9), spawn.Lock()).result()
    assert mortal.submit(operator.methodcaller("get_value"), spawn.Semaphore(7)).result() == 7


@pytest.mark.parametrize("make", ["Lock", "RLock", "Queue", "Event", "Condition", "Value"])
@pytest.mark.parametrize("how", ["closure", "item", "submit", "initargs"])
def test_locks_of_the_fork_context_are_refused_with_the_remedy(make, how, tmp_path, mortal):
    made = getattr(multiprocessing.get_context("fork"), make)(*(["i"] if make == "Value" else []))
    done = tmp_path / "work"
    call = {
        "closure": lambda: parallel_map(lambda k: (done.touch(), made), range(3), **ISOLATED),
        "item": lambda: parallel_map(lambda x: done.touch(), [made, made], **ISOLATED),
        "submit": lambda: mortal.submit(lambda x: done.touch(), made),
        "initargs": lambda: Pool(1, initializer=done.touch, initargs=(made,)),
    }[how]
    with pytest.raises(TypeError, match=r"cannot be sent .*get_context\('spawn'\).*Manager\(\)"):
        call()
    assert not done.exists()


def raiser(kind):
    class Odd:
        def __reduce__(self):
            raise kind("no way")

    return Odd()


@pytest.mark.parametrize("kind", [NotImplementedError, RuntimeError, OSError, KeyError, RecursionError, UserWarning])
def test_whatever_refuses_to_be_pickled_gets_the_remedy(kind, mortal):
    odd = raiser(kind)
    for call in (
        lambda: parallel_map(lambda k: odd, range(3), **ISOLATED),
        lambda: parallel_map(abs, [odd, odd], **ISOLATED),
        lambda: mortal.submit(abs, odd),
        lambda: Pool(1, initializer=abs, initargs=(odd,)),
    ):
        with pytest.raises(TypeError, match=r"cannot be sent to a worker process: .*inside the function") as caught:
            call()
        assert isinstance(caught.value.__cause__, (kind, Exception))


def open_things(folder):
    path = folder / "file.txt"
    path.write_text("text")
    yield path.open("w")
    yield path.open("w+")
    yield path.open("r+")
    yield path.open("a")
    yield path.open("rb")
    yield path.open("r+b", buffering=0)
    yield mmap.mmap(-1, 4096)
    yield os.scandir(folder)


@pytest.mark.parametrize("number", range(8))
def test_open_files_are_refused_before_any_work(number, tmp_path):
    things = list(open_things(tmp_path))
    thing, done = things[number], tmp_path / "work"
    for call in (
        lambda: parallel_map(lambda k: (done.touch(), thing), range(2), **ISOLATED),
        lambda: parallel_map(lambda k, x: done.touch(), range(2), args=(thing,), **ISOLATED),
        lambda: parallel_map(lambda x: done.touch(), [thing, thing], **ISOLATED),
    ):
        with pytest.raises(TypeError, match=r"cannot be sent to a worker process") as caught:
            call()
        assert str(caught.value).count("inside the function") == 1
    assert not done.exists()
    for thing in things:
        thing.close()


def test_open_file_as_a_result_is_an_error_of_its_element(tmp_path):
    def f(k):
        return open(tmp_path / "new", "w") if k == 2 else k

    with pytest.raises(Exception, match=r"cannot pickle") as caught:
        parallel_map(f, range(4), **ISOLATED)
    assert any("in item 2" in note or "while sending" in note for note in caught.value.__notes__)


def describe(view):
    return type(view), view.format, view.shape, view.readonly, view.tobytes(), view.contiguous


VIEWS = {
    "bytes": lambda: memoryview(b"abc"),
    "writable": lambda: memoryview(bytearray(b"abc")),
    "empty": lambda: memoryview(b""),
    "doubles": lambda: memoryview(bytearray(16)).cast("d"),
    "grid": lambda: memoryview(bytearray(range(12))).cast("B", (3, 4)),
    "array": lambda: memoryview(np.arange(6.0).reshape(2, 3)),
    "big endian": lambda: memoryview(np.arange(3, dtype=">i4")),
    "a buffer": lambda: io.BytesIO(b"abc").getbuffer(),
}


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)
def test_views_of_memory_stay_views(make, local):
    view = make()
    want = describe(view)
    assert parallel_map(lambda k: describe(view), range(2), **local) == [want] * 2
    assert parallel_map(describe, [view, view], **local) == [want] * 2
    (found,) = parallel_map(lambda k: view, [0], **local)
    assert describe(found) == want


def test_proxies_of_a_manager_in_a_script(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import multiprocessing
from parwise import parallel_map
def note(k, lock, found):
    with lock:
        found[k] = k
    return k
if __name__ == "__main__":
    with multiprocessing.Manager() as manager:
        lock, found = manager.Lock(), manager.dict()
        assert parallel_map(note, range(5), args=(lock, found), isolate=True, workers=2) == list(range(5))
        print(sorted(found.items()))
"""
    )
    done = run_script("", str(script))
    assert done.stderr == ""
    assert done.stdout == f"{[(k, k) for k in range(5)]}\n"


def test_arrays_are_not_affected(runner):
    """A call with nothing of this kind, in a process that has imported multiprocessing."""
    assert parallel_apply(np.negative, np.arange(5.0), **runner).tolist() == [-0.0, -1.0, -2.0, -3.0, -4.0]
