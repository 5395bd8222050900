"""Sets of elements, and the parts of runs that may count."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence


class ElementSet:
    """A set of elements, kept as sorted runs that do not touch.

    Examples
    --------
    >>> elements = ElementSet([(0, 3), (5, 9)])
    >>> elements.add(3, 5)
    >>> list(elements), list(ElementSet([(2, 4)]).rest(6))
    ([(0, 9)], [(0, 2), (4, 6)])
    """

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        # Starts at even places, ends at odd ones.
        self._ends: list[int] = []
        for lo, hi in runs:
            self.add(lo, hi)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._ends[::2], self._ends[1::2], strict=True)))

    def __contains__(self, index: int) -> bool:
        return bisect_right(self._ends, index) % 2 == 1

    def add(self, lo: int, hi: int) -> None:
        """Add the elements ``lo:hi``."""
        if lo < hi:
            first, last = bisect_left(self._ends, lo), bisect_right(self._ends, hi)
            self._ends[first:last] = [lo] * (first % 2 == 0) + [hi] * (last % 2 == 0)

    def rest(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield the runs of ``range(count)`` that are not in the set."""
        starts = [0, *(hi for _, hi in self)]
        stops = [*(lo for lo, _ in self), count]
        return ((lo, hi) for lo, hi in zip(starts, stops, strict=True) if lo < hi)

    def without(self, others: ElementSet) -> Iterator[tuple[int, int]]:
        """Yield the runs of this set that are not in another one."""
        for lo, hi in self:
            inside = ElementSet((max(lo, a) - lo, min(hi, b) - lo) for a, b in others if a < hi and b > lo)
            yield from ((lo + a, lo + b) for a, b in inside.rest(hi - lo))


def within_cuts(lo: int, hi: int, cuts: Sequence[int] | None) -> tuple[int, int]:
    """The longest part of a run that begins and ends at `cuts`, which are sorted; all of it for None.

    Examples
    --------
    >>> within_cuts(3, 25, [0, 10, 20, 30])
    (10, 20)
    """
    if cuts is None:
        return lo, hi
    first, last = bisect_left(cuts, lo), bisect_right(cuts, hi) - 1
    return (cuts[first], cuts[last]) if first < last else (lo, lo)


def common_cuts(several: Iterable[Sequence[int] | None]) -> list[int] | None:
    """The cuts that all have in common, sorted; None stands for a cut before each element."""
    found: set[int] | None = None
    for cuts in several:
        if cuts is not None:
            found = set(cuts) if found is None else found & set(cuts)
    return None if found is None else sorted(found)
