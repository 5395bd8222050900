"""The blocks of a block function, from the arguments `chunk`, `depth` and `boundary`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..indexing import BLOCK_BYTES, BLOCKS, BOUNDARIES, Halo, block_bounds, block_length, checked_halo, fits
from ..options.number_checks import check_int
from .arrays import InputArray
from .block_grid import BlockGrid

#: The halo of blocks, and the run of elements that each of them is.
Blocks = tuple[Halo | BlockGrid | None, list[tuple[int, int]]]


def make_blocks(
    chunk: Any, depth: Any, boundary: Any, axes: tuple[int, ...], grid: tuple[int, ...], inputs: Sequence[InputArray]
) -> Blocks:
    """Check the arguments, cut the mapped axes into blocks, and set the halo on the inputs."""
    row_bytes = sum(one.row_bytes for one in inputs)
    plain = type(depth) is int and not depth and boundary is None
    if plain and len(axes) == 1 and (chunk is None or type(chunk) is int):
        return None, _bounds(chunk, grid[0], row_bytes, 0)  # most calls: the rest takes 5 us
    depths = per_axis("depth", depth, axes, 0)
    kinds = [None] * len(axes) if boundary is None else _boundaries(boundary, axes)
    sides = tuple(
        Halo(*checked_halo(one, kind, True), length, axis)
        for one, kind, length, axis in zip(depths, kinds, grid, axes, strict=True)
    )
    chunks = per_axis("chunk", chunk, axes, None)
    if len(axes) == 1:
        bounds = _bounds(chunks[0], grid[0], row_bytes, sides[0].depth)
        halo = sides[0] if sides[0].depth else None
        _set_halo(halo, inputs)
        return halo, bounds
    lengths = _lengths(chunks, axes, grid, sides, row_bytes)
    # Along an axis without elements, and then along all, one block has the shape of the whole.
    cuts = tuple(
        (0, *(hi for _, hi in block_bounds(n, length if math.prod(grid) else max(1, n))))
        for n, length in zip(grid, lengths, strict=True)
    )
    # Without a halo the ends of an axis are those of the array, whatever lies beyond.
    sides = tuple(one if one.depth else one._replace(boundary=None) for one in sides)
    blocks = BlockGrid(sides, cuts)
    _set_halo(blocks, inputs)
    return blocks, blocks.bounds()


def per_axis(name: str, value: Any, axes: tuple[Any, ...], missing: Any) -> list[Any]:
    """An argument for each mapped axis: one for all, a tuple, or a dict by axis, in which some may be `missing`.

    Examples
    --------
    >>> per_axis("depth", 2, (0, 1), 0), per_axis("depth", (1, 2), (0, 1), 0), per_axis("depth", {1: 3}, (0, 1), 0)
    ([2, 2], [1, 2], [0, 3])
    """
    if isinstance(value, Mapping):
        for key in value:
            if key not in axes:
                raise ValueError(
                    f"{name}={dict(value)} has a value for {key!r}, but what is mapped over is {_text(axes)}"
                )
        return [value.get(axis, missing) for axis in axes]
    if isinstance(value, tuple):
        if len(value) != len(axes):
            raise ValueError(f"{name}={value!r} has {len(value)} value(s), but what is mapped over is {_text(axes)}")
        return list(value)
    if isinstance(value, list):
        raise TypeError(
            f"{name} must be one value for all mapped axes, a tuple with one for each, or a dict by axis, "
            f"got {value!r}; write {name}={tuple(value)!r}"
        )
    return [value] * len(axes)


def _text(axes: tuple[Any, ...]) -> str:
    if all(isinstance(one, int) for one in axes):
        return f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
    return f"dimension {axes[0]!r}" if len(axes) == 1 else f"dimensions {axes}"


def _boundaries(boundary: Any, axes: tuple[int, ...]) -> list[Any]:
    """`boundary` for each mapped axis: ``("constant", value)`` is one for all."""
    if isinstance(boundary, tuple) and not (len(boundary) == len(axes) and all(map(_is_boundary, boundary))):
        return [boundary] * len(axes)
    return per_axis("boundary", boundary, axes, None)


def _is_boundary(one: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == 2 and isinstance(one[0], str) and one[0] == "constant"
    return one is None or (isinstance(one, str) and one in (*BOUNDARIES, "periodic"))


def _set_halo(halo: Halo | BlockGrid | None, inputs: Sequence[InputArray]) -> None:
    """Set the halo on the inputs; raise a TypeError if one cannot hold a constant beyond the array."""
    for number, one in enumerate(inputs if halo is not None else ()):
        dtype = one.like.dtype
        for side in halo.sides if halo is not None else ():
            if side.boundary == "constant" and not fits(side.value, dtype):
                raise TypeError(
                    f"the constant {side.value!r} beyond the array cannot be stored in array {number} of dtype {dtype}"
                )
        one.set_halo(halo)  # type: ignore[arg-type]


def _bounds(chunk: Any, count: int, row_bytes: int, depth: int) -> list[tuple[int, int]]:
    """The blocks along the only mapped axis."""
    if chunk is None:
        return block_bounds(count, block_length(count, row_bytes, depth))
    return block_bounds(count, _checked_chunk(chunk, count, "the mapped axis"))


def _checked_chunk(chunk: Any, count: int, what: str) -> int:
    length = check_int("chunk", chunk, 1, "an int or None")
    if length > max(1, count):
        raise ValueError(f"chunk={length} is longer than {what}, which has {count}; pass chunk={count} or less")
    return length


def _lengths(
    chunks: list[Any], axes: tuple[int, ...], grid: tuple[int, ...], sides: tuple[Halo, ...], item_bytes: int
) -> list[int]:
    """Lengths of blocks along several axes: those given, and for the others some that depend on the arrays alone."""
    parts = round(BLOCKS ** (1 / len(axes)))
    lengths = [
        min(max(1, n), block_length(n, 1, side.depth, parts))
        if one is None
        else _checked_chunk(one, n, f"the mapped axis {axis}")
        for one, axis, n, side in zip(chunks, axes, grid, sides, strict=True)
    ]
    free = [k for k, one in enumerate(chunks) if one is None]
    while free and math.prod(lengths) * item_bytes > BLOCK_BYTES:
        longest = max(free, key=lambda k: lengths[k])
        if lengths[longest] == 1:
            break
        lengths[longest] = -(-lengths[longest] // 2)
    return lengths
