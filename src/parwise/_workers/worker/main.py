"""A worker process: reads messages from its channel until the caller closes it."""

from __future__ import annotations

import contextvars
import gc
import os
import pickle
import signal
import weakref
from collections import deque
from functools import partial
from typing import Any

import numpy as np

from ..._core.effects.effect import Effect
from ..._core.inputs.foreign import UnreadableError
from ..._core.kernel import Outcome
from ..._core.layout import Layout
from ..._system.blas import ThreadLimit, ThreadWatch
from ..._system.definitions import clear_main, install_modules
from ..._system.inheritance import use_tracker
from ..._system.interpreter import close
from ..._system.surroundings import follower
from ..direct.access import CallerMemory
from ..direct.transfer import DirectTransfer, Extent, Target
from ..encoding import pack, pack_error
from ..pickling.multiprocessing_objects import Attachments, attached, close_copies
from ..pickling.payload import load, load_part, private_copy
from ..protocol import INLINE_BYTES, Channel, ChunkReceiver, ChunkSender, ForeignBytesError, checksum, verified
from ..session import Offsets, Session, Tables
from ..shared_globals import initialize
from ..shared_memory import Slots, buffer_offsets, copy_in, map_anonymous, map_private
from .calls import Batch, CallLog
from .finalizer import finalize
from .output_capture import OutputCapture, OutputEvent, pack_events, split_events
from .process import enable_stack_dump, end_child, flush, keep_memory
from .write_guard import without_writing


def serve(channel: Channel, slots: Slots, caller: CallerMemory) -> None:
    """Run a worker until the caller closes its end of the socket."""
    keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    enable_stack_dump(slots.stack_file())
    install_modules()
    try:
        Worker(channel, slots, caller).run()
    except ForeignBytesError:
        channel.refuse()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    os._exit(0)


def _read_payload(end: int, nbytes: int, check: int, inline: bytes | None, fd: int = -1) -> tuple[memoryview, Any]:
    """Read a payload and its table, which starts at byte `end`, from a message or the file beside it."""
    if inline is not None:
        memory = private_copy(inline)
    else:
        memory = memoryview(map_private(fd, nbytes))
        close(fd)
    return memory, pickle.loads(verified(memory[end:], check))


class Worker:
    """The main loop of a worker, and its state between two messages."""

    def __init__(self, channel: Channel, slots: Slots, caller: CallerMemory) -> None:
        self._channel = channel
        self._slots = slots
        self._caller = caller
        self._direct = DirectTransfer(caller)
        self._limit = ThreadLimit()
        self._watch = ThreadWatch()
        self._capture = OutputCapture(lambda: slots.cursor.element, self._send_output)
        self._capture.install()
        # Why the arguments of a task could not be read from files.
        self._why_unread = ""
        # Number of the task that is being computed, if any, and of the batch of calls that ended early, or 0.
        self._number: int | None = None
        self._unfinished = 0
        # Output that was too long for a message, and all output after it.
        self._pending_output: list[OutputEvent] = []
        self._owner = os.getpid()
        # Messages that came while it waited for a `chunk_ack`.
        self._backlog: deque[tuple[tuple[Any, ...], list[int]]] = deque()
        self._session: Session | None = None
        self._tables = Tables()
        # The table of the initializer's definitions.
        self._prepared: Any = None
        # The context of a call: what the function sets in it ends with the call.
        self._context = contextvars.copy_context()
        # Attachments of the results of this call: the caller may not have unpickled these yet.
        self._sent: list[Attachments] = []
        # Results too large for a slot leave through the two halves of the stream.
        self._sender = ChunkSender(channel, slots.stream, deque(range(len(slots.stream))))
        # Arguments too large for a slot come in chunks.
        self._receiver = ChunkReceiver([])

    def run(self) -> None:
        """Handle messages in order; ends by EOFError."""
        self._slots.cursor.leave()
        close_copies()
        self._channel.send("ready", self._caller.is_open)
        while True:
            (kind, *content), fds = self._backlog.popleft() if self._backlog else self._channel.receive()
            getattr(self, f"_on_{kind}")(*content, *fds)
            if not self._backlog:  # the descriptors that came belonged to messages handled by now
                self._channel.close_arrived()
            close_copies()

    def _on_load(self, call: int, *packed: Any) -> None:
        """Load a session."""
        self._slots.cursor.call = call
        self._session = None
        self._direct.targets = []
        self._tables.clear()
        clear_main()
        self._sent.clear()
        memory, table = _read_payload(*packed)
        try:
            self._context = contextvars.copy_context()
            session = self._context.run(self._load, memory, table)
            # Before the first task: to look for libraries takes 2 ms the first time.
            self._limit.set(session.threads)
            # Drop the output of imports: the caller has imported these modules too.
            self._capture.drain()
            follower.warn_of_edits()
            self._slots.cursor.end_load()
            self._session = session
        except ForeignBytesError:
            raise
        except BaseException as error:
            self._channel.send("load_failed", call, pack_error(error, INLINE_BYTES))

    def _load(self, memory: memoryview, table: Any) -> Session:
        session = Session.load(memory, table, follower.enter)
        follower.follow(session.surroundings)
        return session

    def _on_initialize(self, *content: Any) -> None:
        """Run the pool's initializer, before all tasks."""
        self._prepare("in the initializer of a worker process", *content)

    def _on_set_up(self, *content: Any) -> None:
        """Run the function given as `setup`, before the first task of a call."""
        self._prepare("in the function given as setup, in a worker process", *content)

    def _prepare(self, note: str, call: int, *packed: Any) -> None:
        """Run a function that prepares this process; what it sets stays."""
        memory, table = _read_payload(*packed)
        self._number = call
        error: BaseException | None = None
        try:
            self._prepared, function, arguments, surroundings = load(memory, table, follower.enter)
            follower.follow(surroundings)
            follower.run(initialize, function, *arguments)
        except ForeignBytesError:
            raise
        except BaseException as caught:
            error = caught
        if os.getpid() != self._owner:
            end_child(error)
        if error is not None:
            self._channel.send("prepare_failed", note, pack_error(error, INLINE_BYTES))
        self._send_output()
        self._number = None

    def _on_finalize(self) -> None:
        """Call the pool's finalizer; the caller then ends this process."""
        self._number = 0
        error: BaseException | None = None
        try:
            follower.run(finalize)
        except BaseException as caught:
            error = caught
        if os.getpid() != self._owner:
            end_child(error)
        flush()
        self._send_output()
        for event in split_events(self._take_output()):
            self._channel.send("output", 0, pack_events([event]))
        self._channel.send("finalized", None if error is None else pack_error(error, INLINE_BYTES))

    def _on_track(self, fd: int) -> None:
        """Use the caller's resource tracker."""
        use_tracker(fd)

    def _on_unload(self) -> None:
        """Release the session, its connections, and all definitions."""
        self._session = None
        self._direct.leave()
        self._tables.clear()
        clear_main()
        gc.collect()  # functions and their globals refer to each other

    def _on_define(self, place: tuple[str, bool], *packed: Any) -> None:
        """Keep definitions of a call until a task needs them."""
        memory, table = _read_payload(*packed)
        self._tables.add(*place, partial(load_part, memory, table))

    def _on_arguments_in_chunks(self, nbytes: int) -> None:
        self._receiver = ChunkReceiver([np.frombuffer(map_anonymous(nbytes), np.uint8)])

    def _on_chunk(self, slot: int, nbytes: int) -> None:
        self._receiver.receive(self._slots.inputs[slot][:nbytes])
        self._channel.send("slot_free", slot)

    def _on_chunk_ack(self, half: int) -> None:
        self._sender.free.appendleft(half)  # used next: it is still in the cache

    def _on_targets(self, targets: list[Target | None]) -> None:
        """Take note of where results of this call belong."""
        self._direct.targets = targets

    def _on_task(
        self,
        number: int,
        lo: int,
        hi: int,
        slot: int,
        offsets: Offsets | None,
        layouts: list[Layout] | None,
        offered: bool = False,
        stores: bool = False,
    ) -> None:
        """Compute a task whose arguments are in `slot`, or came in chunks (-1); without `offsets` it reads them itself.

        The caller reuses a slot only after it has read the results in it. If results may be written to the caller's
        memory, a long task is computed part by part, up to a part whose results must be sent. If it `stores` them, they
        are written to files.
        """
        if slot >= 0 and not self._slots.tasks[slot].take():  # the caller has taken it back
            self._channel.send("slot_free", slot)
            return
        if (session := self._session) is None:  # the caller has been told that it could not be loaded
            return
        self._limit.set(session.threads)
        self._number = number
        claim = self._slots.results[slot] if offered or stores else None
        before, effects = 0.0, list[Effect]()
        for begin, end in session.parts(lo, hi) if offsets is None else [(lo, hi)]:
            computed = self._compute_part(session, begin, end, slot, offsets, layouts)
            if computed is None and begin == lo:
                self._channel.send("unread", number, slot, self._why_unread)
                return
            outcome, end = (Outcome(None, 0.0), begin) if computed is None else (computed, end)
            effects += outcome.effects
            if end in (begin, hi) or claim is None:
                break
            self._slots.cursor.enter(end - 1)  # and not at the next part, if this process ends as it writes
            if not self._direct.writes_all(outcome, begin, end, claim):
                break
            before += outcome.seconds
        outcome.effects = effects
        wanted = claim is None or not stores or session.store_claimed(outcome, begin, end, claim)
        header, buffers = pack(outcome, self._take_output(), begin)
        written = self._direct.write(outcome, begin, end, buffers, claim) if offered and claim is not None else []
        self._slots.cursor.leave()
        if written is None or not wanted:
            self._channel.send("dropped", number, slot)
        else:
            self._reply(number, slot, header, (begin, end, before, written), buffers, self._slots.slot_bytes)

    @without_writing
    def _on_trial(self, *task: Any) -> None:
        """Compute a block that is none of the plan's; the caller cuts off its halo."""
        session = self._session
        self._session = None if session is None else session.untrimmed()
        self._on_task(*task)
        self._session = session

    def _compute_part(
        self, session: Session, lo: int, hi: int, slot: int, offsets: Offsets | None, layouts: list[Layout] | None
    ) -> Outcome | None:
        """Compute a task, or a part of it; None if its arguments cannot be read."""
        read, self._why_unread = offsets is None, ""
        if offsets is not None:
            memory = self._slots.arguments(slot) if slot >= 0 else self._receiver.buffers.pop().data
        else:
            try:
                memory, offsets = self._direct.read(session, layouts or session.layouts, lo, hi)
            except OSError:
                return None
        try:
            outcome, kept = self._context.run(self._compute, session, memory, lo, hi, slot, offsets, layouts)
        except UnreadableError as error:
            self._why_unread = str(error)
            return None
        if os.getpid() != self._owner:
            end_child(outcome.error)
        del memory
        if kept and read:
            self._direct.leave()
        elif kept and slot >= 0:
            self._slots.leave_input(slot)
        flush()
        return outcome

    def _on_calls(self, number: int, lo: int, hi: int, slot: int, sizes: list[int], check: int, answered: int) -> None:
        """Make submitted calls, which are in `slot`, or came in chunks (-1); none if an earlier batch is unfinished."""
        if (session := self._session) is None:
            return
        data = bytes((self._slots.inputs[slot] if slot >= 0 else self._receiver.buffers.pop().data)[: sum(sizes)])
        verified(data, check)
        self._limit.set(session.threads)
        self._number = number
        log = CallLog(self._slots.outputs[slot], self._channel.cookie, number) if hi - lo > 1 else None
        batch = Batch(lo, sizes, data, self._slots.tasks[slot], log)
        if answered >= self._unfinished:
            with self._watch:
                self._context.run(batch.run, self._slots.cursor, self._end_call)
            self._unfinished = number if batch.ended_early else 0
        self._slots.cursor.leave()
        header, buffers = batch.pack(self._watch.busy is True, self._take_output())
        # Not over the log: the caller reads it if this process ends before the answer is sent.
        self._reply(number, slot, header, (lo, hi, 0.0, []), buffers, self._slots.slot_bytes if log is None else 0)

    def _end_call(self, error: BaseException | None) -> bool:
        """Complete the output of a submitted call; return True if it has any."""
        if os.getpid() != self._owner:
            end_child(error)
        flush()
        return bool(self._pending_output) or self._capture.pending

    def _take_output(self) -> list[OutputEvent]:
        """The output of the task at hand that has not been sent; other output belongs to no task."""
        self._number = None
        output, self._pending_output = [*self._pending_output, *self._capture.drain()], []
        return output

    def _send_output(self) -> None:
        """Send the output of a long task so far."""
        # Not from a process that the function forked, which has inherited this socket.
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
        offsets: Offsets,
        layouts: list[Layout] | None,
    ) -> tuple[Outcome, bool]:
        """Compute a task; return its outcome, and True if the function kept a view of an argument."""
        # The base of every view that the function gets; it outlives the task only in one of them.
        root = np.frombuffer(memory, np.uint8)
        kept = weakref.ref(root)
        self._slots.cursor.slot, self._slots.cursor.last = slot, hi - 1
        outcome = session.run(root, lo, hi, offsets, layouts, self._watch, self._slots.cursor, self._allocator(slot))
        del root
        return outcome, outcome.error is None and kept() is not None

    def _allocator(self, slot: int) -> Any:
        """Make the function that allocates memory for results: in the slot if they fit."""

        def allocate(count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
            nbytes = count * dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            fits = slot >= 0 and nbytes <= self._slots.slot_bytes
            return np.ndarray((count, *shape), dtype, self._slots.outputs[slot] if fits else None)

        return allocate

    def _reply(self, number: int, slot: int, header: bytes, extent: Extent, buffers: list[Any], room: int) -> None:
        self._channel.send_attachments(attached(buffers))
        self._sent = [*self._sent, *attached(buffers)]
        if len(header) > INLINE_BYTES:  # too long for a message: it becomes the first buffer
            buffers, header = [header, *map(bytes, buffers)], b""
        sizes = [memoryview(buffer).nbytes for buffer in buffers]
        checks = [checksum(buffer) if isinstance(buffer, bytes) else None for buffer in buffers]
        offsets, end = buffer_offsets(sizes)
        if slot >= 0 and end <= room and len(sizes) < 1000:
            for offset, buffer in zip(offsets, buffers, strict=True):
                copy_in(self._slots.outputs[slot], offset, buffer)
            self._channel.send("done", number, slot, header, extent, sizes, checks)
        else:
            self._channel.send("done_in_chunks", number, slot, header, extent, sizes, checks)
            for buffer in buffers:
                self._send_chunks(memoryview(buffer))

    def _send_chunks(self, data: memoryview) -> None:
        """Send data larger than a slot; messages that come meanwhile are handled later."""
        for _ in self._sender.send(data):
            message, fds = self._channel.receive()
            if message[0] == "chunk_ack":
                self._on_chunk_ack(*message[1:])
            else:
                self._backlog.append((message, fds))
