"""Looks after the workers of one call: which take too long, and which have grown too large."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from ._link import Link
from ._memory import LOOK_SECONDS, memory_limit, own_bytes

# Seconds between two looks at elements that may take too long.
LEAST_PATIENCE = 0.005
# A worker whose own memory grows by so much in a call is renewed, or by this
# part of what each worker may have, if that is less.
GROWTH_BYTES = 2**30
GROWTH_SHARE = 4


class Minder:
    """Tells which workers should go.

    Parameters
    ----------
    timeout : float or None
        Seconds that one element may take.
    workers : int
        How many share the memory.
    """

    def __init__(self, timeout: float | None, workers: int) -> None:
        self._timeout = timeout
        self._growth = min(GROWTH_BYTES, memory_limit() // (GROWTH_SHARE * workers))
        self._looked = time.monotonic()

    def patience(self, timeout: float | None, links: Iterable[Link]) -> float | None:
        """Seconds to wait for news, if `timeout` sets no end: until an element may be late."""
        if self._timeout is None:
            return timeout
        now = time.monotonic()
        begun = [link.since if link.at is not None else now for link in links if link.holds]
        left = max(LEAST_PATIENCE, min(begun, default=now) + self._timeout - now)
        return left if timeout is None else min(timeout, left)

    def late(self, links: Iterable[Link]) -> Iterator[tuple[Link, int]]:
        """Workers whose element takes too long, and that element."""
        if self._timeout is None:
            return
        for link in list(links):
            index = link.at
            if index is None or not any(one.task.lo <= index < one.task.hi for one in link.holds.values()):
                continue
            late = time.monotonic() - link.since > self._timeout
            # Unless it has gone on meanwhile.
            if late and link.at == index and link.pidfd >= 0:
                yield link, index

    def grown(self, links: Iterable[Link]) -> Iterator[Link]:
        """Workers that are to be given nothing more, since they have grown, and hold nothing now."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            for link in links:
                self._look(link)
        yield from [link for link in links if link.retiring and not link.holds and link.outbox is None]

    def _look(self, link: Link) -> None:
        has = own_bytes(link.pid) if link.pid else 0
        if has:
            link.least_bytes = min(has, link.least_bytes or has)
            link.retiring = has - link.least_bytes > self._growth
