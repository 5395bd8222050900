"""The workers of one call: given tasks, heard, and missed when they die."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from .._core.indexing import Task
from .._core.kernel import Outcome
from .._system.blas import ThreadCounts, read_threads, workers_beside
from .._workers.encoding import unpack, unpack_error
from .._workers.handle import Held, Inbox, Link
from .._workers.output_capture import unpack_said
from .._workers.session import Shipment
from .._workers.shared_memory import SLOTS, copy_in, lay, map_anonymous
from .._workers.worker_pool import WorkerPool
from .faults import Losses, Minder
from .handshake import Proof
from .job import Job

# Python learns of a signal that comes just before a system call only when that ends: one Ctrl-C of 2,000 was not
# noticed before the next message.
SIGNAL_SECONDS = 1.0

_numbers = itertools.count(1)


class Crew:
    """Workers that compute the tasks of one job.

    One thread at a time uses it. It is a context manager: left by an exception
    it ends the workers, since their state is then unknown.

    Parameters
    ----------
    job : Job
    pool : WorkerPool
        Whose `lock` the caller holds.
    """

    def __init__(self, job: Job, pool: WorkerPool) -> None:
        self._job = job
        self._pool = pool
        self._links: list[Link] = []
        self.started = False
        # Elements that workers have computed.
        self.computed = 0
        # CPU seconds that feeding and collecting took.
        self.feeding = 0.0
        self._losses = Losses(job)
        self._proof = Proof(job)
        self._threads: ThreadCounts = 1
        self._width = 0
        # Whether the caller computes too, on a CPU that one worker then leaves alone.
        self.beside = False
        self._shipment: Shipment | None = None
        # Numbers that belong to the caller's thread, if another one starts the workers.
        self.local_threads: dict[str, int] | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._pool.foreign:  # in a child that was forked in the midst: the workers are the parent's
            return
        if error is not None and self._pool.dirty:
            self._pool.abandon()
        if self.started and error is None:
            assert self._shipment is not None
            self._shipment.take_back(self._links)
        # Left set by a second interrupt within `abandon`: then the next call
        # starts all anew.
        self._pool.dirty = False

    @property
    def warm(self) -> bool:
        """Whether workers of an earlier call are up, and have no part in this one yet."""
        return not self.started and self._pool.running

    @property
    def serving(self) -> bool:
        """Whether a worker is up and can take this call's tasks."""
        return self.started and any(link.ready for link in self._links)

    @property
    def idle(self) -> bool:
        """Whether no worker has any of this call's elements."""
        return not any(not held.proof for link in self._links for held in link.holds.values())

    def rest(self) -> None:
        """Give workers nothing more."""
        self._width = 0

    def supply(self) -> None:
        """Give workers what they have room for, and have others in the place of those that are gone."""
        while len(self._links) < self._width and not self._job.plan.empty:
            link = self._pool.add_link()
            self._links.append(link)
            assert self._shipment is not None
            self._shipment.send([link])
        for link in list(self._links):
            self._supply(link)

    def wake(self) -> None:
        """Make a `step` in another thread return."""
        self._pool.wake()

    def call_up(self) -> None:
        """Bring up workers; does not wait for them."""
        self._width = self._job.workers
        if self._job.watch is not None:
            self._job.watch.called_up()
        self._links = list(self._pool.start(self._width))

    def prepare(self) -> None:
        """Pickle the function, which takes a while: meanwhile workers come up."""
        settings = self._job.call.settings
        # Any other number than the caller's may change bits, for elements that
        # nobody has looked at yet.
        counts = read_threads() | (self.local_threads or {})
        self._threads = settings.blas_threads if isinstance(settings.blas_threads, int) else counts
        self._call = next(self._pool.calls)
        job = self._job
        self._shipment = Shipment(self._call, job.kernel, job.shared_layouts, self._threads, settings.shares)

    def start(self) -> None:
        """Bring up workers and send them the function, as far as that has not been done."""
        if not self._links:
            self.call_up()
        try:
            if self._shipment is None:
                self.prepare()
        except BaseException:
            self._links, self._pool.dirty = [], False  # they have heard nothing of this call
            raise
        assert self._shipment is not None
        self._minder = Minder(self._job.call.settings.timeout, self._width)
        self._proof.start(self._width)
        self._shipment.send(self._links)
        self.started = True
        self.supply()

    @property
    def finished(self) -> bool:
        """Whether nothing is left that could change the result."""
        job = self._job
        held = (held for link in self._links for held in link.holds.values())
        waiting = any(one.task.lo < job.limit and not (one.proof and job.limit <= 0) for one in held)
        return not waiting and job.plan.empty

    def step(self, timeout: float | None) -> None:
        """Wait for news from the workers, take it, and give them more to do."""
        watch = self._job.watch
        since = 0.0 if watch is None else time.perf_counter()
        patience = self._minder.patience(timeout, self._links)
        events = self._pool.wait(SIGNAL_SECONDS if patience is None else min(patience, SIGNAL_SECONDS))
        if watch is not None:
            watch.waited(since)
        begun = time.thread_time()
        for kind, link in events:
            if link in self._links:
                if kind == "death":
                    link.ready = False
                self._hear(link)
                if kind == "death" and link in self._links:
                    self._bury(link)
            elif link in self._pool.links:  # of an earlier call; and not buried just now
                self._pool.look_after(link)
        for link, index in self._minder.late(self._links):
            link.ready = False
            link.kill_with_stack()
            self._hear(link, late=index)
        for link in self._minder.grown(self._links):
            link.kill()
            self._pool.drop(link)
            self._links.remove(link)
            self.supply()
        self._proof.check()
        self.feeding += time.thread_time() - begun

    def _hear(self, link: Link, late: int | None = None) -> None:
        """Take all that a worker has said; `late` is the element that it was killed for."""
        try:
            while True:
                (kind, *content), _ = link.channel.receive()
                getattr(self, f"_on_{kind}")(link, *content)
        except BlockingIOError:
            if late is None:
                self._supply(link)
            else:
                self._bury(link, late)
        except (EOFError, ConnectionError):
            self._bury(link, late)

    def _supply(self, link: Link) -> None:
        """Give a worker what it has room for."""
        try:
            self._push(link)
            self._feed(link)
        except ConnectionError:
            link.ready = False  # dead, of which `step` hears

    # What workers say.

    def _on_hello(self, link: Link) -> None:
        link.ready = True

    def _on_said(self, link: Link, number: int, packed: bytes) -> None:
        held = link.holds.get(number)
        if held is None:  # a thread that the function left behind
            self._job.transcript.hear(0, unpack_said(packed))
        elif not held.proof:
            self._job.transcript.hear(held.task.lo, unpack_said(packed))

    def _on_got(self, link: Link, slot: int) -> None:
        link.free.append(slot)

    def _on_done(self, link: Link, number: int, slot: int, head: bytes, sizes: list[int]) -> None:
        offsets, _ = lay(sizes)
        memory = link.slots.outputs[slot]
        self._take(link, number, head, [memory[at : at + n] for at, n in zip(offsets, sizes, strict=True)])
        link.free.append(slot)

    def _on_large(self, link: Link, number: int, slot: int, head: bytes, sizes: list[int]) -> None:
        link.inbox = Inbox(number, slot, head, [np.empty(size, np.uint8) for size in sizes])
        self._take_inbox(link)

    def _on_piece(self, link: Link, half: int, nbytes: int) -> None:
        inbox = link.inbox
        assert inbox is not None
        inbox.take(link.slots.stream[half][:nbytes])
        link.channel.send("ack", half)
        self._take_inbox(link)

    def _take_inbox(self, link: Link) -> None:
        """Take results that came in pieces, if they are complete; empty ones have none."""
        inbox = link.inbox
        if inbox is not None and inbox.complete:
            link.inbox = None
            self._take(link, inbox.number, inbox.head, [buffer.data for buffer in inbox.buffers])
            if inbox.slot >= 0:
                link.free.append(inbox.slot)

    def _on_broken(self, link: Link, call: int, packed: bytes) -> None:
        if call == self._call:
            error = unpack_error(packed)
            error.add_note("while a worker process was loading the function and its arguments")
            raise error

    def _on_unfit(self, link: Link, packed: bytes) -> None:
        error = unpack_error(packed)
        error.add_note("in the initializer of a worker process")
        raise error

    # What becomes of tasks.

    def _take(self, link: Link, number: int, head: bytes, buffers: list[Any]) -> None:
        """Take the outcome of a task, whose arrays lie in `buffers` for now."""
        held = link.holds.pop(number)
        link.proven = True
        if not head:  # too long for a message
            head, *buffers = (bytes(buffers[0]), *buffers[1:])
        try:
            outcome, said = unpack(head, buffers)
        except Exception as error:  # a result that cannot be rebuilt here: no fault of other tasks
            error.add_note("while reading the results of these elements")
            outcome, said = Outcome(None, 0.0, index=held.task.lo, error=error), []
        if held.proof:
            self._proof.take(outcome)
            return
        self._job.transcript.hear(held.task.lo, said)
        self.computed += len(held.task)
        if outcome.threaded:
            self._make_room()
        self._job.accept(held.task, outcome, link.pid)

    def _make_room(self) -> None:
        """Give fewer workers work, as BLAS is seen to use threads in each.

        OpenBLAS waits by spinning: with more threads than CPUs, 200 x 200
        solves took fifteen times as long as in the plain loop.
        """
        if not isinstance(self._threads, int):
            self._width = workers_beside(self._threads, self._width)

    # What workers are given.

    def _feed(self, link: Link) -> None:
        """Give a worker what it has room for."""
        if not (self.started and link.ready and link.outbox is None) or link.retiring:
            return
        plan = self._job.plan
        if self._proof.due and link.free:
            self._prove(link)
        others = sum(bool(one.holds) for one in self._links if one is not link)
        if others >= self._room:
            return
        while link.outbox is None and link.free and len(link.holds) < (SLOTS if plan.queue_ahead else 1):
            task = plan.take(workers=len(self._links))
            if task is None:
                break
            self._give(link, task)
        if plan.empty and not link.holds and self._has_cpu and self._proof.fits(self._seconds_left):
            self._prove(link)

    @property
    def _room(self) -> int:
        """How many workers may have tasks at a time."""
        return min(self._width, max(1, self._width - self.beside))

    @property
    def _has_cpu(self) -> bool:
        """Whether a CPU is free for a worker without a task, the caller's first element counted in."""
        return self._job.first is not None or sum(bool(link.holds) for link in self._links) + 1 < self._width

    @property
    def _seconds_left(self) -> float:
        """How long the others will be busy, if their tasks take as long as those so far."""
        pace, now = self._job.plan.pace or 0.0, time.monotonic()
        ends = (
            one.since + pace * len(one.task) for link in self._links for one in link.holds.values() if not one.proof
        )
        return max(0.0, max(ends, default=now) - now)

    def _prove(self, link: Link) -> None:
        """Have a worker compute the first task again, to compare what it gets."""
        self._proof.begin()
        self._give(link, self._job.first_task, proof=True)

    def _give(self, link: Link, task: Task, proof: bool = False) -> None:
        """Copy a task's arguments to a slot and tell the worker."""
        slot = -1
        large: Any = None

        def memory(nbytes: int) -> Any:
            nonlocal slot, large
            if nbytes > self._pool.slot_bytes or not link.free:
                large = map_anonymous(nbytes)
                return large
            slot = link.free.popleft()
            return link.slots.inputs[slot]

        offsets, layouts = self._job.stage(task, memory)
        number = next(_numbers)
        message = ("task", number, task.lo, task.hi, slot, offsets, layouts)
        link.holds[number] = Held(task, proof)
        if self._job.watch is not None:
            self._job.watch.served()
        if large is None:
            link.channel.send(*message)
        else:
            link.outbox = self._pieces(link, memoryview(large), message)
            self._push(link)

    def _pieces(self, link: Link, memory: memoryview, message: tuple[Any, ...]) -> Iterator[None]:
        """Send arguments too large for a slot through the slots; yields when none is free."""
        link.channel.send("large", len(memory))
        for at in range(0, len(memory), self._pool.slot_bytes):
            while not link.free:
                yield
            slot = link.free.popleft()
            piece = memory[at : at + self._pool.slot_bytes]
            copy_in(link.slots.inputs[slot], 0, piece)
            link.channel.send("piece", slot, len(piece))
        link.channel.send(*message)

    def _push(self, link: Link) -> None:
        """Send the next pieces, if any are waiting."""
        if link.outbox is not None and next(link.outbox, self) is self:
            link.outbox = None

    # When a worker ends, or should.

    def _bury(self, link: Link, late: int | None = None) -> None:
        """A worker is gone: see to what it was at, and to another one if that is wanted."""
        code = self._pool.exit_code(link)
        self._pool.drop(link)
        self._links.remove(link)
        again = self._losses.settle(link, code, late)
        if again and any(held.proof for held in link.holds.values()):
            self._proof.wanted = True
        self.supply()
