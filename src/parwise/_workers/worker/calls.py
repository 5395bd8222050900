"""Submitted calls in a worker: a batch of them, one after another, and the log of their results."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import pickle
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..._clock import perf_counter
from ..._core.cursor import Cursor
from ..._core.nesting import serial_calls
from ..._system.definitions import clear_main
from ..claims import Claim
from ..encoding import pack_error, unpack_error
from ..pickling.call_pickler import PLAIN, are_same, content
from ..pickling.multiprocessing_objects import Packed
from ..pickling.picklers import dumps
from ..session import LARGE_BYTES
from ..shared_globals import restore
from .output_capture import OutputEvent, pack_events, unpack_events

# A batch goes on for so long. Sending one and its results takes the caller 0.1 ms, and a worker waits as long.
BATCH_SECONDS = 0.002
# A result of more bytes ends its batch, and is not copied to the log.
LARGE_RESULT = 2**14
_DIGEST_BYTES = 16
_SIZE_BYTES = 8


def perform(packed: bytes) -> tuple[bool, Any]:
    """Call a submitted function in a worker; return True and its result, or False and its exception."""
    try:
        table, (func, args, kwargs) = pickle.loads(packed)
        if type(table) is bytes:
            table, func = _load_constant(table)
        if table is not None:
            table.begin()
            table.install()
        restore()
        return True, contextvars.copy_context().run(func, *args, **kwargs)
    except BaseException as error:
        return False, error
    finally:
        if len(packed) > LARGE_BYTES:
            clear_main()


# The head of the latest call of a constant function, its table and function, and what they held at first.
_latest: tuple[bytes, Any, Any, list[Any]] = b"", None, None, []


def _load_constant(head: bytes) -> tuple[Any, Any]:
    """Table and function of a call; those of the latest one if it had the same and has changed nothing in them."""
    global _latest
    if _latest[0] != head or not are_same(_latest[3], _held_by(_latest[1])):
        _latest = b"", None, None, []  # the table, which has the same name
        table, func = pickle.loads(head)
        _latest = head, table, func, _held_by(table)
    return _latest[1:3]


def _held_by(table: Any) -> list[Any]:
    """What a function could change, as objects that never change themselves."""
    spaces = [one for names in table.spaces.values() for pair in names.items() for one in pair]
    return spaces + content(list(table.objects.values()))


class ChunkResults(NamedTuple):
    """What a chunk of items gave: results, and the packed exception behind them."""

    results: list[Any]
    error: bytes | None

    def before(self, error: BaseException) -> ChunkResults:
        """Results before the first one that cannot be pickled, which raised `error`; none if it is not known."""
        found = 0
        with contextlib.suppress(BaseException):
            for one in self.results:
                dumps(one)
                found += 1
        return ChunkResults(self.results[: found % len(self.results)], pack_error(error))


def _pack_result(done: bool, value: Any) -> bytes:
    if done and type(value) in PLAIN:
        return pickle.dumps((True, value), protocol=5)
    if done:
        try:
            return dumps((True, value))
        except BaseException as error:  # a result that cannot be pickled
            error.add_note("while sending the result of this call")
            if isinstance(value, ChunkResults) and value.results:
                return _pack_result(True, value.before(error))
            value = error
    packed = pickle.dumps((False, pack_error(value)), protocol=5)
    value.__traceback__ = None  # its frames hold the definitions of this call, which the next one may not find
    return packed


def unpack_result(packed: Any) -> tuple[bool, Any]:
    """True and the result of a call, or False and its exception."""
    try:
        done, value = pickle.loads(packed)
    except BaseException as error:  # it cannot be rebuilt here
        error.add_note("while reading the result of this call")
        return False, error
    return done, value if done else unpack_error(value)


class CallLog:
    """Results of the calls of one batch, in an output slot from the moment that each is there.

    The caller reads them where the answer does not come: a long call follows, or the worker has died. Each has a
    digest, so that an unfinished one, one of an earlier batch, and bytes that a wild pointer has written are known.

    Parameters
    ----------
    memory : memoryview
        The output slot of the batch.
    cookie : bytes
        The secret of the pool.
    number : int
        Number of the batch.
    """

    def __init__(self, memory: memoryview, cookie: bytes, number: int) -> None:
        from hashlib import blake2b  # 2.7 ms, and most pools have no batches

        self._memory, self._number, self._end = memory, number, 0
        self._hash = functools.partial(blake2b, key=cookie, digest_size=_DIGEST_BYTES)

    def _digest(self, packed: bytes, at: int) -> bytes:
        return self._hash(b"%d %d " % (self._number, at) + packed).digest()

    def append(self, packed: bytes) -> bool:
        """Add a result; False if there is no room for it."""
        at, end = self._end, self._end + _SIZE_BYTES + _DIGEST_BYTES + len(packed)
        if end > len(self._memory):
            return False
        digest = self._digest(packed, at)
        self._memory[at:end] = len(packed).to_bytes(_SIZE_BYTES, "little") + digest + packed
        self._end = end
        return True

    def read(self) -> Iterator[bytes]:
        """The results so far, in the process that has not written them."""
        at = 0
        while (start := at + _SIZE_BYTES + _DIGEST_BYTES) <= len(self._memory):
            head = bytes(self._memory[at:start])
            end = start + int.from_bytes(head[:_SIZE_BYTES], "little")
            packed = bytes(self._memory[start : min(end, start + LARGE_RESULT)])
            if self._digest(packed, at) != head[_SIZE_BYTES:]:
                return
            yield packed
            at = end


class Batch:
    """Calls of one message, made one after another.

    A single worker makes calls in the order in which they were submitted: those left of a batch come before the next
    batch, which the worker may have got already. It makes none of that, and the caller sends both again.

    It ends, and its results are sent, with a call that has printed something or has a large result, after
    `BATCH_SECONDS`, or where the caller has taken back the rest.

    Parameters
    ----------
    lo : int
        Index of the first call.
    sizes : list of int
        Sizes of the pickled calls in `data`.
    claim : Claim
        Is taken for each call, by whoever decides about it; the caller takes it for the last ones.
    log : CallLog or None
        None for a batch of one call.
    """

    def __init__(self, lo: int, sizes: list[int], data: bytes, claim: Claim, log: CallLog | None) -> None:
        self._lo, self._sizes, self._data = lo, sizes, data
        self._claim, self._log = claim, log
        self._results: list[bytes] = []
        self._seconds = 0.0

    @property
    def ended_early(self) -> bool:
        """True if calls are left."""
        return len(self._results) < len(self._sizes)

    def run(self, cursor: Cursor, end_call: Callable[[BaseException | None], bool]) -> None:
        """Make the calls; `end_call` gets the exception of each, or None, and returns True if it has printed."""
        with serial_calls():
            self._run(cursor, end_call)

    def _run(self, cursor: Cursor, end_call: Callable[[BaseException | None], bool]) -> None:
        begun = perf_counter()
        cursor.last = self._lo + len(self._sizes) - 1
        for index, packed in enumerate(self._calls(), self._lo):
            if not self._claim.take():
                break
            cursor.enter(index)
            done, value = perform(packed)
            printed = end_call(None if done else value)
            result = _pack_result(done, value)
            del value  # it may hold connections
            self._results.append(result)
            self._seconds = perf_counter() - begun
            if printed or self._seconds > BATCH_SECONDS or not self._logged(result):
                break

    def _calls(self) -> Iterator[bytes]:
        at = 0
        for size in self._sizes:
            yield self._data[at : at + size]
            at += size

    def _logged(self, result: bytes) -> bool:
        small = type(result) is bytes and len(result) <= LARGE_RESULT
        return small and self._log is not None and self._log.append(result)

    def pack(self, threaded: bool, output: list[OutputEvent]) -> tuple[bytes, list[Any]]:
        """Header and buffers of the answer."""
        results, buffers = self._results, []
        if results and (type(results[-1]) is Packed or len(results[-1]) > LARGE_RESULT):
            buffers = [results.pop()]
        events = pack_events(output) if output else None
        return pickle.dumps((self._seconds, threaded, results, events), protocol=5), buffers


def unpack_answer(header: bytes, buffers: list[Any]) -> tuple[float, bool, list[Any], list[OutputEvent]]:
    """Seconds, whether threads took part, packed results, and output of a batch."""
    seconds, threaded, results, events = pickle.loads(header)
    return seconds, threaded, [*results, *buffers], unpack_events(events) if events else []
