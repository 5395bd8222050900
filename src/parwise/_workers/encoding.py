"""Encodes outcomes and exceptions for their way to another process: a small header and flat buffers."""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from .._core.kernel import Outcome
from .._core.results import SCALARS, Column, Results, Stack
from .._system.modules import note_what_is_missing
from ..errors import PACKAGE, RemoteError
from .output_capture import OutputEvent, pack_events, unpack_events
from .serialization import dumps

# Tuples of more results than this are sent as one pickle.
MANY_COLUMNS = 64
# Kinds of stacks that any process can unpickle without an import.
_KNOWN = SCALARS | {np.ndarray, "block"}


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


def pack(outcome: Outcome, output: list[OutputEvent], lo: int) -> tuple[bytes, list[Any]]:
    """Header and buffers of an outcome of the task from `lo` on; arrays are not copied."""
    header = OutcomeHeader(
        outcome.index, outcome.seconds, outcome.threaded, bool(output), gaps=outcome.gaps, begun=outcome.begun
    )
    packed, buffers = b"", list[Any]()
    if outcome.results is not None:
        try:
            packed, buffers = _pack_results(header, outcome.results)
        except Exception as error:  # a result that cannot be pickled
            error.add_note("while sending the results of these elements")
            outcome.error = error
            header = header._replace(raised=max(outcome.index, lo), gaps=None)
    packed = packed or _dump_header(header)
    if outcome.error is not None:
        buffers.append(pack_error(outcome.error))
    if output:
        buffers.append(pack_events(output))
    return packed, buffers


def _pack_results(header: OutcomeHeader, results: Results) -> tuple[bytes, list[Any]]:
    many = len(results.columns) > MANY_COLUMNS
    columns = () if many else tuple(map(_kind, results.columns))
    buffers = [dumps(results.columns)] if many else list(map(_flat, results.columns))
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


def _flat(column: Column) -> Any:
    if _kind(column) is None:
        return dumps(column)
    assert isinstance(column, Stack)
    return np.ascontiguousarray(column.array).reshape(-1).view(np.uint8) if column.array.size else b""


def unpack(header: bytes, buffers: list[Any]) -> tuple[Outcome, list[OutputEvent]]:
    """Decode an outcome, whose arrays are views of `buffers`, and its output."""
    info = OutcomeHeader(*pickle.loads(header))
    buffers = list(buffers)
    output = unpack_events(buffers.pop()) if info.output else []
    error = unpack_error(buffers.pop()) if info.raised >= 0 else None
    outcome = Outcome(None, info.seconds, info.threaded, info.raised, error, info.gaps, info.begun)
    if not info.found:
        return outcome, output
    columns: list[Column] = pickle.loads(buffers.pop()) if info.many else []
    for described, buffer in zip(info.columns, buffers, strict=True):
        if described is None:
            columns.append(pickle.loads(buffer))
        else:
            kind, dtype, shape = described
            columns.append(Stack(kind, np.ndarray(shape, dtype, buffer if len(buffer) else None)))
    outcome.results = Results(columns, info.wrap)
    return outcome, output


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
    """Pickles an exception to be rebuilt without its ``__init__``, whose arguments may differ from ``args``."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_bare, (type(self._error), self._error.args, vars(self._error))


def _make_bare(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(state)
    return error


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
    except Exception as problem:
        error = RemoteError(f"an exception that cannot be rebuilt here ({problem}); its traceback is the cause")
    error.__cause__ = RemoteTraceback(text)
    note_what_is_missing(error)
    return error
