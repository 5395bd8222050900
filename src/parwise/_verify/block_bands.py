"""Blocks along several axes, tried along one axis at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .._core.call import Call
from .._core.inputs.arrays import InputArray
from .._core.inputs.block_grid import BlockGrid


def calls_along_axes(call: Call, blocks: BlockGrid) -> Iterator[Call]:
    """For each mapped axis a call along it alone, over a band of the arrays.

    Along the other axes the band is as wide as a block in the middle with its halo. What the function does at the
    sides of the band is the same whatever the blocks along it, so that both may be compared.
    """
    lo, hi = (call.bounds or [(0, 0)])[len(call.bounds or ()) // 2]
    middle = [side.inside(*part) for side, part in zip(blocks.sides, blocks.box(lo, hi), strict=True)]
    for number, side in enumerate(blocks.sides):
        bounds = list(pairwise(blocks.cuts[number]))
        inputs = tuple(_band(one, middle, number) for one in call.inputs)
        halo = side if side.depth else None
        yield replace(
            call, inputs=inputs, axis=(call.axis[number],), grid=(side.length,), bounds=bounds, halo=halo, out=None
        )


def _band(one: InputArray, middle: list[tuple[int, int]], number: int) -> InputArray:
    """An input along one of its mapped axes, within the `middle` of the others."""
    index = [slice(None)] * len(one.source.shape)
    for k, (axis, span) in enumerate(zip(one.axes, middle, strict=True)):
        if k != number:
            index[axis] = slice(*span)
    source = one.source[tuple(index)]
    return InputArray(source if one.loaded else np.asarray(source), (one.axes[number],), True)
