"""A worker process: takes tasks from its channel until the caller is gone."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import socket
import sys
import traceback
from collections import deque
from typing import Any, NoReturn

import numpy as np

from .._core.kernel import Outcome
from .._core.layout import Layout
from .._system.blas import ThreadLimit, ThreadWatch
from .._system.environment import ProcessState
from .encoding import pack, pack_error
from .output_capture import OutputCapture, OutputEvent, pack_events
from .protocol import INLINE_BYTES, Channel
from .serialization import load, private_copy
from .session import Session
from .shared_globals import initialize
from .shared_memory import Slots, copy_in, lay, map_anonymous, map_private

# Options of glibc's mallopt: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD.
_MALLOC = {-1: 2**25, -3: 2**24}


def serve(sock_fd: int, segment_fd: int, slot_bytes: int) -> None:
    """Work until the caller closes its end."""
    _keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=sock_fd))
    slots = Slots(segment_fd, slot_bytes)
    _leave_stack(slots.stack_file())
    worker = Worker(channel, slots)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        worker.run()
    os._exit(0)


def _read_payload(end: int, nbytes: int, inline: bytes | None, fd: int) -> tuple[memoryview, Any]:
    """Memory and table of a payload that came in a message, or in a file beside it; the table starts at `end`."""
    if inline is not None:
        memory = private_copy(inline)
    else:
        memory = memoryview(map_private(fd, nbytes))
        os.close(fd)
    return memory, pickle.loads(memory[end:])


def _end_child(error: BaseException | None) -> NoReturn:
    """End a process that the function forked and that has come back from it.

    It has the worker's socket, but must not answer in its place.
    """
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    os._exit(code)


def _leave_stack(fd: int) -> None:
    """Have deadly signals write the stack to `fd` first; also SIGTERM, which may come of a timeout."""
    faulthandler.enable(fd, all_threads=False)
    faulthandler.register(signal.SIGTERM, fd, all_threads=False, chain=True)


def _keep_memory() -> None:
    """Have malloc keep what the function frees, for its next call.

    By default it returns a few hundred kB at the top of the heap each time, and
    every call faults them in again: smoothing rows of 200 kB took 314 us
    instead of 50.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in _MALLOC.items():
            libc.mallopt(option, value)


class Worker:
    """What a worker knows between two messages.

    Parameters
    ----------
    channel : Channel
    slots : Slots
    """

    def __init__(self, channel: Channel, slots: Slots) -> None:
        self._channel = channel
        self._slots = slots
        self._limit = ThreadLimit()
        self._watch = ThreadWatch()
        self._capture = OutputCapture(lambda: slots.cursor.index, self._send_output)
        self._capture.install()
        # The task at hand, if any: its number.
        self._number: int | None = None
        # What was too long for a message, and all that was said after it.
        self._pending_output: list[OutputEvent] = []
        self._owner = os.getpid()
        self._backlog: deque[tuple[tuple[Any, ...], list[int]]] = deque()
        self._session: Session | None = None
        self._stream_free = [True, True]
        # An argument too large for a slot comes in pieces and is put together here.
        self._large = memoryview(b"")
        self._filled = 0

    def run(self) -> None:
        """Do what the messages say, in order."""
        self._slots.cursor.leave()
        self._channel.send("ready")
        while True:
            (kind, *content), fds = self._backlog.popleft() if self._backlog else self._channel.receive()
            getattr(self, f"_on_{kind}")(*content, *fds)

    def _on_load(self, call: int, end: int, nbytes: int, inline: bytes | None, fd: int = -1) -> None:
        """Take over a call: its function, and the state of its caller."""
        self._session = None
        memory, table = _read_payload(end, nbytes, inline, fd)
        try:
            session = Session.load(memory, table)
            # Looking for libraries takes 2 ms the first time, which no task need wait for.
            self._limit.set(session.threads)
            # The caller has imported the function's modules itself, and heard them.
            self._capture.drain()
            self._session = session
        except BaseException as error:
            self._channel.send("load_failed", call, pack_error(error, INLINE_BYTES))

    def _on_initialize(self, call: int, end: int, nbytes: int, inline: bytes | None, fd: int = -1) -> None:
        """Run the pool's initializer, before all tasks."""
        memory, table = _read_payload(end, nbytes, inline, fd)
        self._number = call
        error: BaseException | None = None
        try:
            initializer, initargs = load(memory, table, ProcessState.apply)
            initialize(initializer, initargs)
        except BaseException as caught:
            error = caught
        if os.getpid() != self._owner:
            _end_child(error)
        if error is not None:
            self._channel.send("initialize_failed", pack_error(error, INLINE_BYTES))
        self._send_output()
        self._number = None

    def _on_unload(self) -> None:
        """Release a large function: the next call may come late."""
        self._session = None

    def _on_arguments_in_chunks(self, nbytes: int) -> None:
        self._large = memoryview(map_anonymous(nbytes))
        self._filled = 0

    def _on_chunk(self, slot: int, nbytes: int) -> None:
        self._large[self._filled : self._filled + nbytes] = self._slots.inputs[slot][:nbytes]
        self._filled += nbytes
        self._channel.send("slot_free", slot)

    def _on_chunk_ack(self, half: int) -> None:
        self._stream_free[half] = True

    def _on_task(
        self,
        number: int,
        lo: int,
        hi: int,
        slot: int,
        offsets: list[tuple[int, int]],
        layouts: list[Layout] | None,
    ) -> None:
        """Compute a task whose arguments lie in `slot`, or came in pieces (-1).

        The caller gives a slot anew only when it has read its last results.
        """
        session = self._session
        if session is None:  # the caller knows already that it could not be loaded
            return
        memory = self._slots.inputs[slot] if slot >= 0 else self._large
        self._large = memoryview(b"")
        self._limit.set(session.threads)
        self._number = number
        outcome, kept = self._compute(session, memory, lo, hi, slot, offsets, layouts)
        if os.getpid() != self._owner:
            _end_child(outcome.error)
        if kept and slot >= 0:
            del memory
            self._slots.leave_input(slot)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        self._number = None
        output, self._pending_output = [*self._pending_output, *self._capture.drain()], []
        head, buffers = pack(outcome, output, lo)
        self._slots.cursor.leave()
        self._reply(number, slot, head, buffers)

    def _send_output(self) -> None:
        """Tell the caller what a long task has said so far."""
        # Not from a process that the function forked, which has this socket too.
        if self._number is None or os.getpid() != self._owner:
            return
        output = self._capture.drain()
        if not self._pending_output:
            packed = pack_events(output)
            if len(packed) <= INLINE_BYTES:
                self._channel.send("output", self._number, packed)
                return
        self._pending_output.extend(output)

    def _compute(
        self,
        session: Session,
        memory: memoryview,
        lo: int,
        hi: int,
        slot: int,
        offsets: list[tuple[int, int]],
        layouts: list[Layout] | None,
    ) -> tuple[Outcome, bool]:
        """The outcome; and True if the function kept a view of its argument."""
        # Every view that the function gets has this array for its base.
        root = np.frombuffer(memory, np.uint8)
        cursor = self._slots.cursor
        cursor.slot = slot
        outcome = session.run(root, lo, hi, offsets, layouts, self._watch, cursor, self._allocator(slot))
        return outcome, outcome.error is None and sys.getrefcount(root) > 2

    def _allocator(self, slot: int) -> Any:
        """Where results go: straight to the slot, if they fit."""

        def allocate(count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
            nbytes = count * dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            if slot >= 0 and nbytes <= self._slots.slot_bytes:
                return np.ndarray((count, *shape), dtype, self._slots.outputs[slot])
            return np.empty((count, *shape), dtype)

        return allocate

    def _reply(self, number: int, slot: int, head: bytes, buffers: list[Any]) -> None:
        if len(head) > INLINE_BYTES:  # too long for a message: goes first
            buffers, head = [head, *map(bytes, buffers)], b""
        sizes = [memoryview(buffer).nbytes for buffer in buffers]
        offsets, end = lay(sizes)
        if slot >= 0 and end <= self._slots.slot_bytes and len(sizes) < 1000:
            for offset, buffer in zip(offsets, buffers, strict=True):
                copy_in(self._slots.outputs[slot], offset, buffer)
            self._channel.send("done", number, slot, head, sizes)
        else:
            self._channel.send("done_in_chunks", number, slot, head, sizes)
            for buffer in buffers:
                self._send_chunks(memoryview(buffer).cast("B") if len(memoryview(buffer)) else b"")

    def _send_chunks(self, data: Any) -> None:
        step = len(self._slots.stream[0])
        for at in range(0, len(data), step):
            half = self._free_half()
            chunk = data[at : at + step]
            copy_in(self._slots.stream[half], 0, chunk)
            self._stream_free[half] = False
            self._channel.send("chunk", half, len(chunk))

    def _free_half(self) -> int:
        """A half of the stream that the caller has read; other messages wait."""
        while not any(self._stream_free):
            message, fds = self._channel.receive()
            if message[0] == "chunk_ack":
                self._on_chunk_ack(*message[1:])
            else:
                self._backlog.append((message, fds))
        return self._stream_free.index(True)
