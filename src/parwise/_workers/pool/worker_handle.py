"""The caller's handle of one worker: its process, socket and slots, and the tasks assigned to it."""

from __future__ import annotations

import contextlib
import signal
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ..._clock import monotonic
from ..._core.indexing import Task
from ..._core.results import Results
from ..._system.interpreter import DeferredInterrupt, close, select
from ..._system.module_watch import watch
from ..._system.surroundings import CallerState
from ..direct.transfer import Target
from ..direct.undying import undying
from ..other_processes import collect_exit, end_orphans, kill, open_descendants
from ..pickling.multiprocessing_objects import Attachments
from ..protocol import Channel, ChunkReceiver, ChunkSender, socket_pair
from ..shared_memory import SLOTS, Slots, create_fd, map_anonymous, segment_bytes
from .silence import Silence

# Time that a worker has for a write that it has begun, time between two looks whether it is over, and time that a
# killed worker has to end.
WRITE_SECONDS = 0.5
WRITE_POLL_SECONDS = 0.001
DYING_SECONDS = 1.0
# Time for a worker that gets SIGTERM to write its stack, before it is killed.
STACK_SECONDS = 0.5


class Assignment:
    """A task that was sent to a worker at the time `since`; results of a handshake are only compared.

    It is in `slot`, or in none (-1). The worker may write its results to `rows`, one for each column, which live as
    long as it may; or to files, if it `stores` them.
    """

    def __init__(
        self,
        task: Task,
        handshake: bool,
        attachments: list[Attachments],
        slot: int = -1,
        rows: Sequence[Any] = (),
        stores: bool = False,
    ) -> None:
        self.task, self.first, self.slot, self.rows, self.stores = task, task.lo, slot, rows, stores
        self.handshake = handshake
        self.attachments = attachments
        # Receives results that do not count.
        self.receive: Callable[[Results | None], None] | None = None
        self.since = monotonic()


class StagedTask(NamedTuple):
    """A task whose arguments lie in a slot, or in memory of their own if they are larger, or are read by the worker.

    Of these no offsets are known.
    """

    task: Task
    slot: int
    large: Any
    offsets: list[tuple[int, int, int]] | None
    layouts: Any
    attachments: list[Attachments]


class WorkerHandle:
    """One worker, as the caller knows it.

    Attributes
    ----------
    pid, pidfd : int
        0 and -1 until the fork server has reported them.
    ready, was_up : bool
        True once the worker has answered; once it is known to have ended it is not ready any more.
    direct : bool
        True if it may read and write this process's memory.
    told_targets : bool
        True if it has been told where results of this call belong.
    has_computed : bool
        True once the worker has computed a task.
    orphaned : bool
        True if the fork server has ended, by which the worker ends too.
    messages : int
        Messages received from the worker.
    answered : int
        Number of the last batch of submitted calls whose answer was read.
    call, earlier_call : int
        Numbers of the last call whose session the worker was sent, and of the one before; 0 for none.
    parts : dict
        Parts of definitions that the worker has been sent, by the token of their call, the latest calls last.
    free : deque of int
        Input slots without a task.
    taken_back : set of int
        Slots of tasks that were taken back; the worker will skip them, and tell.
    assignments : dict
        Assignments by their number, in the order sent.
    sender, receiver
        Arguments that are being sent in chunks; results that are coming in chunks.
    least_bytes : int, optional
        The least memory seen in this call.
    reloads : int
        How often modules had been reloaded when the worker was started, see `ModuleWatch`.
    state : CallerState, optional
        What surrounds the session that the worker was sent, if the job knows that.
    mark : bytes, optional
        Mark of the function given as `setup` that the worker has been sent.
    retiring : bool
        True if it gets no more tasks, since it will be replaced.
    silence : Silence
        How long it has owed an answer and done nothing.
    """

    def __init__(self, key: int, slot_bytes: int, cookie: bytes) -> None:
        self.key = key
        self._worker_fds: tuple[int, int] | None = None
        self.channel, self.slots = self._open(slot_bytes, cookie)
        self.slots.cursor.leave()  # or one that ends as it starts would have ended in element 0
        self.pid = 0
        self.pidfd = -1
        self.ready = self.was_up = self.direct = self.told_targets = False
        self.has_computed = self.orphaned = False
        self.messages = self.answered = 0
        self.call = self.earlier_call = 0
        self.parts: OrderedDict[str, set[int]] = OrderedDict()
        self.reloads = watch.reloads
        self.state: CallerState | None = None
        self.mark: bytes | None = None
        self._tracker: int | None = None
        self.taken_back: set[int] = set()
        self.reset()

    def _open(self, slot_bytes: int, cookie: bytes) -> tuple[Channel, Slots]:
        """Open what caller and worker share."""
        undying.release()
        with contextlib.ExitStack() as undo:
            own_end, worker_end = socket_pair()
            channel = Channel(own_end, cookie)
            undo.callback(channel.close)
            undo.callback(worker_end.close)
            segment = create_fd(segment_bytes(slot_bytes))
            undo.callback(close, segment)
            slots = Slots(segment, slot_bytes)
            undo.pop_all()
        self._worker_fds = (worker_end.detach(), segment)
        return channel, slots

    def reset(self) -> None:
        """Prepare for the next call; the worker must have no task left."""
        self.free = deque(slot for slot in range(SLOTS) if slot not in self.taken_back)
        self.assignments: dict[int, Assignment] = {}
        self.sender: Iterator[None] | None = None
        self.receiver: ChunkReceiver | None = None
        self.least_bytes: int | None = None
        self.retiring = False
        self.silence = Silence()

    def hear(self, kind: str, *content: Any) -> None:
        """Take note if the worker tells that it is up, and whether it may read and write this process's memory."""
        if kind == "ready":
            self.ready, self.was_up, (self.direct,) = True, True, content

    def request_fork(self, fork_server: Channel, slot_bytes: int, secret: int) -> None:
        """Ask the fork server for the process of this worker; `secret` is the address of that of the pool."""
        assert self._worker_fds is not None
        try:
            fork_server.send("fork", self.key, slot_bytes, secret, fds=self._worker_fds)
        finally:
            for fd in self._worker_fds:
                close(fd)
            self._worker_fds = None

    def stage(self, stage: Callable[..., Any], task: Task, slot_bytes: int) -> StagedTask:
        """Have `stage` copy the arguments of a task to a free slot, or to new memory if they are too large."""
        slot = -1
        large: Any = None

        def memory(nbytes: int) -> Any:
            nonlocal slot, large
            if nbytes > slot_bytes or not self.free:
                large = map_anonymous(nbytes)
                return large
            slot = self.free.popleft()
            return self.slots.inputs[slot]

        try:
            offsets, layouts, attachments = stage(task, memory)
        except BaseException:
            self.free.extendleft([slot] if slot >= 0 else [])
            raise
        return StagedTask(task, slot, large, offsets, layouts, attachments)

    def unstage(self, staged: StagedTask) -> None:
        """Free the slot of a task that is not sent."""
        self.free.extendleft([staged.slot] if staged.slot >= 0 else [])

    def send_task(
        self,
        number: int,
        staged: StagedTask,
        handshake: bool,
        rows: Sequence[Any] = (),
        stores: bool = False,
        kind: str = "task",
    ) -> None:
        """Send a task, in a message of that kind; the worker may write its results to `rows`, or to files."""
        task, slot = staged.task, staged.slot
        message: tuple[Any, ...] = (kind, number, task.lo, task.hi, slot, staged.offsets, staged.layouts)
        if kind != "trial":
            message += (self.answered,) if kind == "calls" else (bool(rows), stores)
        self.assignments[number] = Assignment(task, handshake, staged.attachments, slot, rows, stores)
        # From here on the task is lost with the worker, if it has ended: it will be given to another one.
        if slot >= 0 or kind == "calls":
            self.slots.tasks[slot].offer(len(task) if kind == "calls" else 1)
        if rows or stores:
            self.slots.results[slot].offer()
        if rows:
            self._tell_targets(rows, task.lo)
        self.channel.send_attachments(staged.attachments)
        if staged.large is None:
            self.channel.send(*message)
        else:
            self.sender = self._argument_chunks(memoryview(staged.large), message)
            self.send_chunks()

    def take_back(self, number: int) -> bool:
        """Take back a task; False if the worker has begun it, or must have it."""
        one = self.assignments[number]
        if one.slot < 0 or one.attachments or not self.slots.tasks[one.slot].take():
            return False
        del self.assignments[number]
        self.taken_back.add(one.slot)
        return True

    def free_slot(self, slot: int) -> None:
        """Note that the worker has read the arguments in a slot, or skipped a task that was taken back."""
        self.taken_back.discard(slot)
        self.free.append(slot)

    def catch_up(self) -> bool:
        """Read late answers to earlier calls; return False if the worker still computes for one."""
        if not (self.assignments or self.taken_back or self.sender is not None):
            return True
        with contextlib.suppress(BlockingIOError, EOFError, OSError):
            self._read_late_answers()
        if self.assignments or self.sender is not None:
            return False
        self.reset()
        return True

    def _read_late_answers(self) -> None:
        while self.assignments or self.taken_back:
            if not self.note_late_answer(self.channel.receive()[0]):
                break

    def note_late_answer(self, message: tuple[Any, ...]) -> bool:
        """Note an answer to an earlier call, of which the results do not count; False for one that says nothing."""
        kind = message[0]
        if kind in ("done", "dropped", "unread"):
            self.answered = message[1]
            self.assignments.pop(message[1], None)
        elif kind == "slot_free":
            self.free_slot(message[1])
        elif kind == "ready":
            self.hear(*message)
        return kind in ("done", "dropped", "unread", "slot_free", "ready")

    def _tell_targets(self, rows: Sequence[tuple[Any, Any]], lo: int) -> None:
        """Tell the worker where results of this call belong, once; `rows` are those of elements from `lo` on."""
        if not self.told_targets:
            self.channel.send("targets", [Target.of(*one, lo) for one in rows])
            self.told_targets = True

    def _argument_chunks(self, memory: memoryview, message: tuple[Any, ...]) -> Iterator[None]:
        """Send arguments too large for a slot through the slots; yields while none is free."""
        self.channel.send("arguments_in_chunks", len(memory))
        yield from ChunkSender(self.channel, self.slots.inputs, self.free).send(memory)
        self.channel.send(*message)

    @property
    def streaming(self) -> bool:
        """True while arguments or results pass in chunks."""
        return self.sender is not None or self.receiver is not None

    def send_chunks(self) -> None:
        """Send as many chunks as slots are free, if any are left."""
        if self.sender is not None and next(self.sender, self) is self:
            self.sender = None

    def share_tracker(self, fd: int | None) -> None:
        """Have the worker use the resource tracker of this process, whose descriptor is `fd`."""
        if fd != self._tracker and fd is not None:
            with contextlib.suppress(ConnectionError):  # the worker is dead; its pidfd reports that
                self.channel.send("track", fds=[fd])
            self._tracker = fd

    @property
    def at(self) -> int | None:
        """Index of the element that the worker is computing, or died in; None between tasks."""
        index = self.slots.cursor.index
        return None if index < 0 else index

    @property
    def is_of_an_earlier_call(self) -> bool:
        """True if the worker has not begun to load the last call that it was sent, and was there for another one."""
        return bool(self.earlier_call) and self.slots.cursor.call != self.call

    @property
    def in_an_element(self) -> bool:
        """True if the worker is computing an element of one of its tasks, and neither loading nor sending."""
        index = self.at
        # Of its first task only: while the results of that are sent, the index is that of the next one's first element.
        task = next((one.task for one in self.assignments.values()), None)
        return index is not None and task is not None and task.lo <= index < task.hi

    @property
    def over(self) -> bool:
        """True if the worker has ended."""
        return self.pidfd >= 0 and self._ends_within(0)

    @property
    def since(self) -> float:
        """When the worker began that element, by the monotonic clock, in seconds."""
        return self.slots.cursor.since

    def revoke(self) -> None:
        """Return when the worker writes no results to this process's memory, or to files, any more.

        A write takes milliseconds. A worker that has been stopped within one is killed.
        """
        killed_at = monotonic() + WRITE_SECONDS
        with DeferredInterrupt():
            for one in self.assignments.values():
                self._revoke(one, killed_at)

    def _revoke(self, one: Assignment, killed_at: float) -> None:
        claim = self.slots.results[one.slot]
        while (one.rows or one.stores) and not claim.take() and not self._ends_within(WRITE_POLL_SECONDS):
            if monotonic() > killed_at:
                self.kill()
            if monotonic() > killed_at + DYING_SECONDS:
                undying.keep(self.pidfd, one.rows)
                break
        one.rows, one.stores = (), False

    def _ends_within(self, seconds: float) -> bool:
        """True if the worker ends, if it can be known yet."""
        poll = select.poll()
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def kill(self) -> None:
        """Kill the worker; the fork server then kills the processes that the worker started."""
        kill(self.pidfd)

    def kill_with_stack(self) -> None:
        """Kill the worker after it has written its stack, and the processes that it started, in whatever session."""
        started = open_descendants(self.pid)
        if self.pidfd >= 0 and not self.over:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
            self._ends_within(STACK_SECONDS)
        self.kill()
        for pidfd in started:
            kill(pidfd)
            close(pidfd)

    def collect_exit(self) -> int | None:
        """Exit code of the worker, or minus the signal, if a dead fork server left it to this process; else None."""
        return collect_exit(self.pidfd)

    def end_orphans(self) -> None:
        """End the worker and what it started, where a dead fork server left them to this process."""
        if self.pidfd >= 0:
            end_orphans(self.pid, self.pidfd)

    def close(self) -> None:
        """Close the socket, at which the worker ends."""
        # A cycle, if the sender refers to this handle: the memory would stay until a garbage collection.
        self.sender = self.receiver = None
        self.channel.close()
        for fd in self._worker_fds or ():
            close(fd)
        if self.pidfd >= 0:
            close(self.pidfd)
            self.pidfd = -1
