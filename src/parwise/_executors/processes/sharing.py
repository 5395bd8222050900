"""How caller and workers share a call, by the time that it takes."""

from __future__ import annotations

from ..._core.call import Call
from ..._core.inputs.items import ENDLESS
from ..job.task_queue import TaskQueue

# Work up to which the caller goes on computing beside its workers. Longer calls are left to them: the caller then only
# waits for messages, and what the function prints comes soon.
BESIDE_SECONDS = 0.25
# Work for which one more worker pays: it takes 1 to 2 ms of a CPU to load the function.
WORKER_SECONDS = 0.003
# The caller's tasks: each is this part of its share of the rest. A look at the messages of workers between two of them
# takes 0.2 ms after some ms of another code, and 0.7 ms if there is one and a task to send: with tasks of 0.5 to 4 ms
# calls of 50 ms took 4 % longer. Tasks of 10 ms would wake the helper thread.
OWN_SHARES = 3
OWN_SECONDS = 0.001
MOST_OWN_SECONDS = 0.008


def is_shared(seconds: float) -> bool:
    """Tell whether the caller goes on computing beside its workers in a call with so many seconds of work."""
    return seconds <= BESIDE_SECONDS


class Sharing:
    """Decides whether the caller goes on computing beside its workers, and how many of them it needs then.

    In a call of some milliseconds the caller goes on from the first element, and workers get tasks from the last one
    back: no element waits for a worker that is late or has no CPU, and what the function prints in the caller is in
    order. One worker less than CPUs leaves the caller one.
    """

    def __init__(self, call: Call, queue: TaskQueue, stepwise: bool) -> None:
        self._queue = queue
        self._beside = not (stepwise or call.settings.isolate or call.stream is not None or call.count >= ENDLESS)
        # To read a file backwards takes longer.
        self._beside &= all(one.loaded for one in call.inputs)

    @property
    def beside(self) -> bool:
        """True as long as the caller goes on computing; once it has left a call to workers it does not come back."""
        queue = self._queue
        self._beside = self._beside and (queue.pace is None or is_shared(queue.seconds_left))
        return self._beside

    def workers(self, most: int) -> int:
        """Number of workers that the rest of the call pays for, out of `most`."""
        if most < 2 or not self.beside:
            return most
        # Without a pace the first element is still being computed: a worker pays for each one that takes so long.
        unknown = self._queue.pace is None
        paid = self._queue.count_left if unknown else int(self._queue.seconds_left / WORKER_SECONDS)
        return max(1, min(most - 1, paid))

    def own_seconds(self, workers: int, most: int) -> float:
        """Length of the caller's next task beside so many workers, whose tasks have at most so many elements."""
        share = self._queue.seconds_left / (OWN_SHARES * (workers + 1))
        # A worker holds two tasks: the next one is to be there as it has done both.
        return min(MOST_OWN_SECONDS, max(OWN_SECONDS, min(share, most * (self._queue.pace or 0.0))))
