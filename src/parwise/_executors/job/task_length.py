"""How many elements a task should have, by the time that they take."""

from __future__ import annotations

# Each hand-over takes 0.1 to 0.2 ms of a CPU that a worker could use: tasks of 10 ms cost 5 % of a call of 0.3 s.
TASK_SECONDS = 0.040
# Tasks shrink near the end, so that workers finish together: each is this part of a worker's share of the rest (with
# a third, 0.2 s of work took 2 % longer), but takes at least as long as its hand-over.
SHARES = 2
LEAST_SECONDS = 0.001
# So many workers can be fed with tasks of these lengths. For more of them tasks are longer; and since each worker then
# holds a second one, which is long too, a task is a smaller part of the rest: with a half, 3 of 64 workers had work for
# 8 % more time than the others.
FED_WORKERS = 5
CROWDED_SHARES = 3
# The last tasks of so many are long enough that handing over takes at most this part of the caller's time: where it
# took all, 64 workers waited for them for 12 % of a call.
FEEDING_SHARE = 0.3
# The first element of a call takes up to so long with a function of 1 us, since nothing of it is in the caches: it says
# nothing against the pace of an earlier call. With it 10,000 such elements seemed to take a second, and the caller left
# them to workers.
COLD_SECONDS = 0.0005
# Seconds of the caller that a hand-over takes: 85 us to 0.2 ms were measured, by the machine and what else it does. At
# most the second counts, since copies of results take time by the element, and not by the task.
HAND_OVER_SECONDS = 0.0001
MOST_HAND_OVER_SECONDS = 0.0003


class TaskLength:
    """Measures elements, and tells how many of them the next task should have.

    Attributes
    ----------
    pace : float or None
        Seconds of an element, once one has been measured.
    """

    def __init__(self) -> None:
        self.pace: float | None = None
        self._samples = 0
        self._measured, self._seconds = 0, 0.0
        self._hand_over_seconds = HAND_OVER_SECONDS

    def measure(self, count: int, seconds: float) -> None:
        """Update the time of an element from a finished task of `count` elements."""
        pace = seconds / max(1, count)
        self._samples += 1
        self._measured += count
        self._seconds += seconds
        if self._samples == 1 and count == 1 and self.pace is not None and seconds < COLD_SECONDS:
            return
        # The very first call is slow (imports, caches), so the second one replaces it. From then on the newest has
        # half the weight: uneven work changes quickly.
        self.pace = pace if self.pace is None or self._samples <= 2 else 0.5 * (self.pace + pace)

    def measure_hand_over(self, seconds: float) -> None:
        """Note how many seconds of the caller it takes to send a task and to accept its outcome."""
        self._hand_over_seconds = min(seconds, MOST_HAND_OVER_SECONDS)

    @property
    def mean_pace(self) -> float | None:
        """Mean seconds of the elements measured, if there are any."""
        return self._seconds / self._measured if self._measured else None

    def elements(self, most: int, seconds: float, workers: int, left: int) -> int:
        """Elements of a task of so many `seconds` at `most`, if `workers` share those `left`."""
        if not self.pace:
            return 1 if self.pace is None else most
        size = min(most, int(max(1.0, workers / FED_WORKERS) * seconds / self.pace))
        if workers > 1 and left > 0:
            fair = left // ((SHARES if workers <= FED_WORKERS else CROWDED_SHARES) * workers)
            size = min(size, max(fair, round(self._least_seconds(workers) / self.pace)))
        return size

    def _least_seconds(self, workers: int) -> float:
        """Length of the last tasks of so many workers."""
        if workers <= FED_WORKERS:
            return LEAST_SECONDS
        return max(LEAST_SECONDS, workers * self._hand_over_seconds / FEEDING_SHARE)
