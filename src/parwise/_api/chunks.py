"""Chunks of items, in which `Pool.map` sends them to workers."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, cast

from .._core.inputs.items import is_container, restored, still
from .._workers.encoding import pack_error, unpack_error
from .._workers.pickling.sent_definitions import Definitions
from .._workers.pickling.snapshot import Snapshot
from .._workers.worker.calls import ChunkResults


class Chunk:
    """A function of a chunk of items."""

    def __init__(self, func: Callable[..., Any], definitions: Definitions | None = None) -> None:
        self.func = func
        self.definitions = definitions
        self.__qualname__ = getattr(func, "__qualname__", repr(func))

    def __reduce__(self) -> tuple[Any, ...]:
        return Chunk, (self.func,)

    def __call__(self, chunk: list[tuple[Any, ...]]) -> ChunkResults:
        results: list[Any] = []
        try:
            results.extend(itertools.starmap(self.func, chunk))
            if len(results) < len(chunk):
                raise StopIteration  # raised by the function, which `starmap` takes for its own end
        except BaseException as error:
            return ChunkResults(results, pack_error(error))
        return ChunkResults(results, None)


def read_rows(iterables: tuple[Iterable[Any], ...]) -> list[tuple[Any, ...]]:
    """Rows of items as they were when they were read: an iterator may change one object again and again."""
    rows = zip(*iterables, strict=False)
    return list(rows if all(map(is_container, iterables)) else (tuple(map(_still, row)) for row in rows))


def _still(item: Any) -> Any:
    with contextlib.suppress(Exception):  # it cannot be sent either, which is told then
        return still(item, Snapshot)
    return item


def restored_row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(restored(one, Snapshot) for one in row)


def flat(chunks: Iterator[ChunkResults]) -> Iterator[Any]:
    """Yield the results of chunks one by one, and raise the first error behind the results before it."""
    # An error that is kept keeps its frames: the calls behind it are cancelled now.
    with contextlib.closing(cast("Generator[ChunkResults]", chunks)):
        yield from _flat(chunks)


def _flat(chunks: Iterator[ChunkResults]) -> Iterator[Any]:
    for results, error in chunks:
        results.reverse()
        while results:  # and keep none that has been taken
            yield results.pop()
        if error is not None:
            raise unpack_error(error)
