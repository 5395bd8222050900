"""Encodes outcomes and exceptions for their way to another process: a small header and flat buffers."""

from __future__ import annotations

import contextlib
import io
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from .._core.kernel import Outcome
from .._core.results import SCALARS, Column, Results, Stack, stacked
from .._system.modules import note_what_is_missing
from .._system.reducers import exception_parts
from ..errors import PACKAGE, RemoteError
from .pickling.picklers import Pickler, dumps
from .worker.output_capture import OutputEvent, pack_events, unpack_events

# Tuples of more results than this are sent as one pickle.
MANY_COLUMNS = 64
# Kinds of stacks that any process can unpickle without an import.
_KNOWN = SCALARS | {np.ndarray, "block"}
# Bytes of a result from which on results are pickled together.
LARGE_RESULT = 2**14
# Results that are pickled together. Others take 0.4 us more each, and one that cannot be sent is known by its index.
_TOGETHER = SCALARS | {str, bytes, type(None), tuple, list, dict, set, frozenset}


class OutcomeHeader(NamedTuple):
    """Describes the buffers of an outcome; sent as a plain tuple.

    Attributes
    ----------
    raised : int
        Index of the element that raised, or -1.
    threaded : bool
        True if threads of BLAS or another library took part.
    output : bool
        True if the last buffer holds warnings, text and log records.
    columns : tuple
        Kind, dtype and shape of each column's array; None for a pickled list.
    many : bool
        True if one pickle holds all columns instead.
    begun : float
        When the function was first called, by `time.perf_counter` of its machine, in seconds.
    failures : int
        Number of exceptions of gaps, in as many buffers.
    """

    raised: int
    seconds: float
    threaded: bool
    output: bool
    wrap: type[tuple[Any, ...]] | None = None
    columns: tuple[tuple[Any, np.dtype[Any], tuple[int, ...]] | None, ...] = ()
    many: bool = False
    found: bool = False
    gaps: np.ndarray | None = None
    begun: float = 0.0
    failures: int = 0


def pack(outcome: Outcome, output: list[OutputEvent], lo: int) -> tuple[bytes, list[Any]]:
    """Header and buffers of an outcome of the task from `lo` on; arrays are not copied."""
    output = [*output, *outcome.effects]
    header = OutcomeHeader(
        outcome.index, outcome.seconds, outcome.threaded, bool(output), gaps=outcome.gaps, begun=outcome.begun,
        failures=len(outcome.failures),
    )  # fmt: skip
    packed, buffers = b"", list[Any]()
    if outcome.results is not None:
        try:
            packed, buffers = _pack_results(header, outcome.results)
        except BaseException as error:  # a result that cannot be pickled
            error.add_note("while sending the results of these elements")
            outcome.error = error
            before = _leading(outcome.results, header.gaps, dumps)
            header = header._replace(raised=lo + len(before), gaps=None, failures=0)
            outcome.failures = ()
            if before:
                packed, buffers = _pack_results(header, Results([before]))
    packed = packed or _dump_header(header)
    if outcome.error is not None:
        # The first failure is the error itself.
        buffers += map(pack_error, outcome.failures or [outcome.error])
    if output:
        buffers.append(pack_events(output))
    return packed, buffers


def _leading(results: Results, gaps: np.ndarray | None, transfer: Callable[[Any], object]) -> list[Any]:
    """Results of a list before the first one that cannot be transferred; none if its index is not known."""
    (column, *others), found = results.columns, list[Any]()
    if gaps is None and not others and isinstance(column, list):
        with contextlib.suppress(BaseException):
            for result in column:
                transfer(result)
                found.append(result)
    return [] if len(found) == len(column if isinstance(column, list) else found) else found


def _pack_results(header: OutcomeHeader, results: Results) -> tuple[bytes, list[Any]]:
    results = stacked(results)
    many = len(results.columns) > MANY_COLUMNS
    columns = () if many else tuple(map(_kind, results.columns))
    buffers = [dumps(results.columns)] if many else list(map(flat, results.columns))
    return _dump_header(header._replace(wrap=results.wrap, columns=columns, many=many, found=True)), buffers


def _dump_header(header: OutcomeHeader) -> bytes:
    # Types that users define, also within a dtype, need another pickler, which takes 25 us instead of 4.
    known = header.wrap in (None, tuple) and all(one is None or _is_known(*one[:2]) for one in header.columns)
    return pickle.dumps(tuple(header), protocol=5) if known else dumps(tuple(header))


def _is_known(kind: Any, dtype: np.dtype[Any]) -> bool:
    """True if any process can unpickle them without an import."""
    return kind in _KNOWN and dtype.kind in "?biufcSUmM" and dtype.metadata is None


def _kind(column: Column) -> tuple[Any, np.dtype[Any], tuple[int, ...]] | None:
    if not isinstance(column, Stack) or column.array.dtype.hasobject:
        return None
    return column.kind, column.array.dtype, column.array.shape


def flat(column: Column) -> Any:
    """The buffer of a column."""
    if isinstance(column, list):
        return dumps(column) if _TOGETHER.issuperset(map(type, column)) else _dumps_each(column)
    if column.array.dtype.hasobject:
        return dumps(column)
    return np.ascontiguousarray(column.array).reshape(-1).view(np.uint8) if column.array.size else b""


def unpack_task(header: bytes, buffers: list[Any], lo: int) -> tuple[Outcome, list[OutputEvent]]:
    """Decode an outcome of the task from `lo` on; one that cannot be rebuilt here is the error of that task alone."""
    try:
        return unpack(header, buffers)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # Ctrl-C
        error.add_note("while reading the results of these elements")
        before = _readable(header, buffers)
        return Outcome(Results([before]) if before else None, 0.0, index=lo + len(before), error=error), []


def _readable(header: bytes, buffers: list[Any]) -> list[Any]:
    """Results of a list before the first one that cannot be rebuilt."""
    found: list[Any] = []
    with contextlib.suppress(BaseException):
        info = OutcomeHeader(*pickle.loads(header))
        if info.columns == (None,) and info.gaps is None:
            for result in _loads_each(buffers[0]):
                found.append(result)  # noqa: PERF402 - those before an error are kept
    return found


def unpack(header: bytes, buffers: list[Any]) -> tuple[Outcome, list[OutputEvent]]:
    """Decode an outcome, whose arrays are views of `buffers`, and its output."""
    info = OutcomeHeader(*pickle.loads(header))
    buffers = list(buffers)
    output = unpack_events(buffers.pop()) if info.output else []
    count = 0 if info.raised < 0 else info.failures or 1
    errors = [unpack_error(one) for one in buffers[len(buffers) - count :]]
    del buffers[len(buffers) - count :]
    error, failures = (errors[0] if errors else None), errors[: info.failures]
    outcome = Outcome(None, info.seconds, info.threaded, info.raised, error, info.gaps, info.begun, failures)
    if not info.found:
        return outcome, output
    columns: list[Column] = pickle.loads(buffers.pop()) if info.many else []
    for described, buffer in zip(info.columns, buffers, strict=True):
        if described is None:
            columns.append(_load_column(buffer))
        else:
            kind, dtype, shape = described
            columns.append(Stack(kind, np.ndarray(shape, dtype, buffer if len(buffer) else None)))
    outcome.results = Results(columns, info.wrap)
    return outcome, output


def _dumps_each(results: list[Any]) -> bytes:
    """Pickle a list so that `_loads_each` can read its first items if a later one cannot be rebuilt.

    Large ones are pickled together, which spares a copy.
    """
    stream = io.BytesIO()
    pickler = Pickler(stream)
    for at, one in enumerate((len(results), *results)):
        pickler.dump(one)
        if at == 1 and stream.tell() > LARGE_RESULT:
            return dumps(results)
    return stream.getvalue()


def _loads_each(packed: Any) -> Iterator[Any]:
    """Unpickle the items of a list one by one."""
    unpickler = pickle.Unpickler(io.BytesIO(packed))
    for _ in range(unpickler.load()):
        yield unpickler.load()


def _load_column(buffer: Any) -> Column:
    column: Any = pickle.loads(buffer)
    return column if type(column) is not int else list(_loads_each(buffer))


class RemoteTraceback(Exception):  # noqa: N818 - shown to users by this name
    """The traceback of another process, shown as the cause of an exception."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def trim(tb: TracebackType | None) -> TracebackType | None:
    """Remove parwise's own frames from the top of a traceback."""
    own = tb
    while own is not None and own.tb_frame.f_code.co_filename.startswith(PACKAGE):
        own = own.tb_next
    return own or tb


def pack_error(error: BaseException, limit: int | None = None) -> bytes:
    """Encode an exception and its traceback as bytes that can surely be unpickled.

    Above `limit` bytes the traceback is cut, and a `RemoteError` with type and text replaces the exception.
    """
    text = "".join(traceback.format_exception(type(error), error, trim(error.__traceback__)))
    for candidate in (error, _Bare(error), _stand_in(error, limit)):
        try:
            pickled = dumps(candidate)
            pickle.loads(pickled)
        except BaseException:  # whatever its class raises; a worker gets no Ctrl-C
            continue
        if limit is None or len(pickled) + len(text) <= limit:
            break
        text = text[-limit // 2 :]
    return pickle.dumps((pickled, text))


class _Bare:
    """Pickles an exception without its cause, and past what its class says about pickling."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return exception_parts(self._error, None, None)


def _stand_in(error: BaseException, limit: int | None) -> RemoteError:
    """A `RemoteError` with the type and text of an exception that cannot be sent itself."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    stand_in = RemoteError(f"{name}: {_text(error)[:limit]}")
    stand_in.type_name = name
    return stand_in


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text cannot be shown)"


def unpack_error(packed: Any) -> BaseException:
    """Decode an exception; its cause is the remote traceback."""
    pickled, text = pickle.loads(packed)
    try:
        error: BaseException = pickle.loads(pickled)
    except BaseException as problem:
        error = RemoteError(
            f"an exception that cannot be rebuilt in this process ({problem}); its traceback is the cause of this one"
        )
    error.__context__ = error.__cause__ or error.__context__
    error.__cause__ = RemoteTraceback(text)
    note_what_is_missing(error)
    return error
