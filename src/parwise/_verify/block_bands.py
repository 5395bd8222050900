"""Blocks along several axes, tried along one axis at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from .._core.call import Call
from .._core.indexing import Halo
from .._core.inputs.arrays import InputArray
from .._core.inputs.block_grid import BlockGrid


def calls_along_axes(call: Call, blocks: BlockGrid, widest: int | None = None) -> list[Call]:
    """For each mapped axis a call along it alone, over a band of the arrays.

    Along the other axes the band is as wide as a block in the middle, or `widest` if that is less, with its halo. What
    the function does at the sides of the band is the same whatever the blocks along it, so that both may be compared.
    """
    middle = [_within(side, cut, widest) for side, cut in zip(blocks.sides, blocks.cuts, strict=True)]
    return [
        replace(
            call,
            inputs=tuple(_band(one, middle, number, side) for one in call.inputs),
            axis=(call.axis[number],),
            grid=(side.length,),
            bounds=list(pairwise(blocks.cuts[number])),
            halo=side if side.depth else None,
            out=None,
            naming=call.naming.along(number),
        )
        for number, side in enumerate(blocks.sides)
    ]


def _within(side: Halo, cut: Sequence[int], widest: int | None) -> tuple[int, int]:
    """Start and stop of the middle block along an axis, or of the middle of it, with its halo as far as there is one.

    The last of two blocks may be a short rest.
    """
    number = (len(cut) - 2) // 2
    lo, hi = cut[number : number + 2]
    if widest is not None and hi - lo > widest:
        lo = (lo + hi - widest) // 2
        hi = lo + widest
    return side.inside(lo, hi)


def _band(one: InputArray, middle: list[tuple[int, int]], number: int, side: Halo) -> InputArray:
    """An input along one of its mapped axes, within the `middle` of the others."""
    index = [slice(None)] * len(one.source.shape)
    for k, (axis, span) in enumerate(zip(one.axes, middle, strict=True)):
        if k != number:
            index[axis] = slice(*span)
    source = one.source[tuple(index)]
    band = InputArray(source if one.loaded else np.asarray(source), (one.axes[number],), True)
    if side.depth:
        band.set_halo(side)
    return band
