"""What became of a task, in a form that travels: a small head and flat buffers."""

from __future__ import annotations

import os
import pickle
import traceback
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import cloudpickle
import numpy as np

from ._environment import WarningRecord
from ._kernel import Outcome
from ._results import Column, Results, Stack
from .errors import RemoteError

# Tuples of more results than this travel as one pickle.
MANY_COLUMNS = 64
_PACKAGE = os.path.dirname(__file__) + os.sep


@dataclass(frozen=True)
class Head:
    """What a parcel's buffers mean.

    Attributes
    ----------
    index : int
        The element that raised, or -1.
    wrap : type, optional
        Tuple type of the results.
    columns : tuple
        Kind, dtype and shape of each column's array; None for a pickled list.
        None at all if one pickle holds them all.
    seconds : float
        Time spent in the function.
    threaded : bool
        Whether threads of BLAS or the like took part.
    warned : bool
        Whether the last buffer holds warnings.
    """

    index: int
    wrap: type[tuple[Any, ...]] | None
    columns: tuple[tuple[Any, np.dtype[Any], tuple[int, ...]] | None, ...]
    seconds: float
    threaded: bool
    warned: bool


def pack(outcome: Outcome, warned: list[WarningRecord], lo: int) -> tuple[bytes, list[Any]]:
    """Head and buffers of an outcome; the arrays are not copied.

    Parameters
    ----------
    outcome : Outcome
    warned : list of WarningRecord
    lo : int
        First element, which gets the blame if results cannot be pickled.
    """
    index, wrap = -1, None
    columns: list[tuple[Any, np.dtype[Any], tuple[int, ...]] | None] = []
    buffers: list[Any] = []
    if outcome.results is not None:
        try:
            wrap = outcome.results.wrap
            many = len(outcome.results.columns) > MANY_COLUMNS
            for column in [] if many else outcome.results.columns:
                columns.append(_kind(column))
                buffers.append(_flat(column))
            if many:
                buffers = [cloudpickle.dumps(outcome.results.columns, protocol=5)]
            head = cloudpickle.dumps(Head(index, wrap, tuple(columns), outcome.seconds, outcome.threaded, bool(warned)))
        except Exception as error:  # a result that cannot be pickled
            error.add_note("while sending the results of these elements")
            outcome.error = error
    if outcome.error is not None:
        buffers = [pack_error(outcome.error)]
        head = cloudpickle.dumps(
            Head(max(outcome.index, lo), None, (), outcome.seconds, outcome.threaded, bool(warned))
        )
    if warned:
        buffers.append(_pack_warnings(warned))
    return head, buffers


def _kind(column: Column) -> tuple[Any, np.dtype[Any], tuple[int, ...]] | None:
    if not isinstance(column, Stack) or column.array.dtype.hasobject:
        return None
    return column.kind, column.array.dtype, column.array.shape


def _flat(column: Column) -> Any:
    if _kind(column) is None:
        return cloudpickle.dumps(column, protocol=5)
    assert isinstance(column, Stack)
    return np.ascontiguousarray(column.array).reshape(-1).view(np.uint8) if column.array.size else b""


def unpack(head: bytes, buffers: list[Any]) -> tuple[Outcome, list[WarningRecord]]:
    """The outcome, its arrays lying in `buffers`, and the warnings."""
    info: Head = pickle.loads(head)
    buffers = list(buffers)
    warned = pickle.loads(buffers.pop()) if info.warned else []
    if info.index >= 0:
        return Outcome(None, info.seconds, info.threaded, info.index, unpack_error(buffers[0])), warned
    columns: list[Column] = pickle.loads(buffers.pop()) if not info.columns else []
    for described, buffer in zip(info.columns, buffers, strict=True):
        if described is None:
            columns.append(pickle.loads(buffer))
        else:
            kind, dtype, shape = described
            columns.append(Stack(kind, np.ndarray(shape, dtype, buffer if len(buffer) else None)))
    return Outcome(Results(columns, info.wrap), info.seconds, info.threaded), warned


class RemoteTraceback(Exception):  # noqa: N818 - shown to users by this name
    """Shows the traceback of another process as the cause of an exception."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def trim(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without parwise's own frames at its top."""
    own = tb
    while own is not None and own.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        own = own.tb_next
    return own or tb


def pack_error(error: BaseException, most: int | None = None) -> bytes:
    """An exception and its traceback, as bytes that surely can be unpickled.

    Parameters
    ----------
    error : BaseException
    most : int, optional
        Bytes that a longer one is cut to, losing all but its type and text.
    """
    text = "".join(traceback.format_exception(type(error), error, trim(error.__traceback__)))
    try:
        pickled = cloudpickle.dumps(error)
        pickle.loads(pickled)
        if most is not None and len(pickled) + len(text) > most:
            text = text[-most // 2 :]
            raise ValueError("too long")
    except Exception:
        # Only its type and text can be told.
        name = f"{type(error).__module__}.{type(error).__qualname__}"
        stand_in = RemoteError(f"{name}: {_text(error)[:most]}")
        stand_in.type_name = name
        pickled = cloudpickle.dumps(stand_in)
    return pickle.dumps((pickled, text))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text cannot be shown)"


def unpack_error(packed: Any) -> BaseException:
    """The exception, its remote traceback as its cause."""
    pickled, text = pickle.loads(packed)
    try:
        error: BaseException = pickle.loads(pickled)
    except Exception as problem:
        error = RemoteError(f"an exception that cannot be rebuilt here ({problem}); its traceback is the cause")
    error.__cause__ = RemoteTraceback(text)
    return error


def _pack_warnings(records: list[WarningRecord]) -> bytes:
    try:
        packed: bytes = cloudpickle.dumps(records)
        pickle.loads(packed)
    except Exception:
        packed = pickle.dumps(
            [WarningRecord(r.index, str(r.message), UserWarning, r.filename, r.lineno) for r in records]
        )
    return packed
