"""Finds workers that take too long, have grown too much, or stand still."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..._clock import monotonic, process_time
from ..._system.limits import LOOK_SECONDS, memory_limit, own_bytes
from .worker_handle import WorkerHandle

# No wait lasts longer: Python notices a signal that comes just before a system call only when that ends. One Ctrl-C
# of 2,000 was not noticed before the next message.
SIGNAL_SECONDS = 1.0
# The least wait between two checks of deadlines.
LEAST_WAIT_SECONDS = 0.005
# A worker is replaced if its own memory grows by so many bytes in one call, or by this part of its share of the
# memory, whichever is less.
GROWTH_BYTES = 2**30
GROWTH_SHARE = 4
# A wait that lasts this much longer than asked for was none: this process, or the machine, was suspended.
SUSPENDED_SECONDS = 1.0


class Watchdog:
    """Finds workers that exceed a deadline or their memory, and those that are silent.

    Parameters
    ----------
    timeout : float or None
        Seconds that one element may take.
    workers : int
        Workers that share the memory.
    streamed : bool
        True if the call's results are taken one by one, and the program does other work between two steps.
    """

    def __init__(self, timeout: float | None, workers: int, streamed: bool = False) -> None:
        self._timeout = timeout
        self._growth = min(GROWTH_BYTES, memory_limit() // (GROWTH_SHARE * workers))
        self._looked = monotonic()
        # When the current wait began, and ends at the latest.
        self._wait = (0.0, float("inf"))
        # When the last wait ended, and the CPU time that this process had used.
        self._left = (float("inf"), 0.0)
        self._streamed = streamed
        # Ends and seconds of times in which this process was suspended, or the program busy with streamed results.
        self._suspended: list[tuple[float, float]] = []
        # True if a worker has grown too much, and if the last look has not been asked about since.
        self._grown = self._new_look = False

    def wait_seconds(self, timeout: float | None, workers: Iterable[WorkerHandle]) -> float:
        """Seconds to wait for messages: at most `timeout`, and not past the next deadline."""
        now = self._look_back()
        seconds = SIGNAL_SECONDS if timeout is None else min(timeout, SIGNAL_SECONDS)
        if self._timeout is not None:
            begun = [worker for worker in workers if worker.assignments and worker.at is not None]
            taken = max((self._seconds(worker, now) for worker in begun), default=0.0)
            seconds = min(seconds, max(LEAST_WAIT_SECONDS, self._timeout - taken))
        self._wait = (now, now + seconds)
        return seconds

    def _look_back(self) -> float:
        """Note a suspension since the last wait has ended; return the time until which that is known."""
        now, (left, used) = monotonic(), self._left
        # A signal stops this process anywhere, not only in a wait; what it has computed meanwhile was no suspension.
        computed = process_time()
        away = now - left - (0.0 if self._streamed else computed - used)
        if away > SUSPENDED_SECONDS:
            self._suspended.append((now, away))
            self._left = now, computed
        return now

    def overdue(self, workers: Iterable[WorkerHandle]) -> Iterator[tuple[WorkerHandle, int]]:
        """Workers whose element has exceeded the deadline, and that element."""
        if self._timeout is None:
            return
        now = self._look_back()
        for worker in list(workers):
            index = worker.at
            if index is None or not worker.in_an_element:
                continue
            overdue = self._seconds(worker, now) > self._timeout
            # It may have finished that element meanwhile.
            if overdue and worker.at == index and worker.pid:
                yield worker, index

    def waited(self) -> None:
        """Note for how long nothing ran: a frozen container, or a laptop that slept, is no element that hangs.

        To be called at the end of the wait: what follows may take long, as the unpickling of a large result.
        """
        now, (begin, end) = monotonic(), self._wait
        self._left = now, process_time()
        if now - end > SUSPENDED_SECONDS:
            self._suspended.append((now, now - begin))

    def _seconds(self, worker: WorkerHandle, now: float) -> float:
        """Seconds that a worker has spent on its element, as far as this process ran meanwhile."""
        return now - worker.since - sum(seconds for end, seconds in self._suspended if end > worker.since)

    def look(self, workers: Iterable[WorkerHandle]) -> float:
        """Look at memory and activity of workers, once a second; return the seconds since the last look, or 0."""
        elapsed = monotonic() - self._looked
        if elapsed <= LOOK_SECONDS:
            return 0.0
        self._looked += elapsed
        elapsed = min(elapsed, 2 * LOOK_SECONDS)  # this process may have been busy or suspended
        self._grown, self._new_look = False, True
        starting = not any(worker.ready for worker in workers)
        for worker in workers:
            self._measure(worker)
            owes = worker.assignments or worker.sender is not None or worker.channel.waiting
            if worker.pid and (owes or (starting and not worker.ready)):
                worker.silence.look(worker.pid, (worker.messages, worker.at, worker.since), elapsed)
            else:
                worker.silence.end()
        return elapsed

    def _measure(self, worker: WorkerHandle) -> None:
        nbytes = own_bytes(worker.pid) if worker.pid else 0
        if nbytes:
            worker.least_bytes = min(nbytes, worker.least_bytes or nbytes)
            worker.retiring = nbytes - worker.least_bytes > self._growth
        self._grown |= worker.retiring

    def oversized(self, workers: Iterable[WorkerHandle]) -> list[WorkerHandle]:
        """Workers whose memory has grown too much, and that hold no task now."""
        if not self._grown:  # each wake asks
            return []
        return [worker for worker in workers if worker.retiring and not worker.assignments and worker.sender is None]

    def silent(self, workers: Iterable[WorkerHandle]) -> list[WorkerHandle]:
        """Workers that owe an answer and do nothing; of those in an element only stopped ones that have no deadline.

        Told once after each look.
        """
        new_look, self._new_look = self._new_look, False
        if not new_look:
            return []
        return [worker for worker in workers if worker.silence.too_long and self._matters(worker)]

    def _matters(self, worker: WorkerHandle) -> bool:
        if worker.in_an_element:
            return worker.silence.stopped and self._timeout is None
        # Imports, initializers and `setup` are the user's code, too.
        return worker.silence.stopped or worker.silence.seconds >= (self._timeout or 0.0)
