"""Maps over groups of Dask arrays: one Dask task for each group."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed
from dask.utils import funcname

from ..._core.inputs.random import RandomStreams, make_random_streams
from ..group_results import VariableSpec, gap_data, label_result, variable_specs
from ..labels import Labels
from ..request import Request, as_told, run
from ..slices import Boxed
from ..variables import ItsOwn
from .dtypes import all_of_one_length, check_declared
from .maps import check_options
from .shared import shared
from .task import serial_options


def lazy_results(groups: list[Any], labels: Labels, request: Request) -> list[Any]:
    """Results of all groups, as DataArrays or Datasets of Dask arrays."""
    check_options(request)
    if request.output_dtypes is None:
        raise ValueError(
            "the data is in Dask's blocks, where results are not known before they are computed; pass "
            "output_dtypes=... (a dict, if func returns a Dataset of different variables; and "
            "output_core_dims, if not the same dimensions), or load() it first"
        )
    streams = (
        None if request.rng is None else make_random_streams(request.rng, request.func, dict(request.kwargs or {}))
    )
    serial = shared(replace(request, rng=None, options=serial_options(request)), funcname(request.func))
    compute = delayed(_compute_group)
    described, columns = [], dict[Hashable, list[Any]]()
    for number, group in enumerate(groups):
        specs = variable_specs(group, request)
        for one in specs:
            check_declared(one.dtype)
        # Dask computes the data of the group before it calls the function.
        data = compute(serial, streams, number, labels.subset((number,), (1,)), specs, group)
        described.append(specs)
        for k, one in enumerate(specs):
            columns.setdefault(one.name, []).append(da.from_delayed(data[k], one.shape, one.dtype))
    for one in described[0] if described else ():
        columns[one.name] = all_of_one_length(columns[one.name], one.dtype)
    return [
        label_result(group, specs, {name: column[k] for name, column in columns.items()})
        for k, (group, specs) in enumerate(zip(groups, described, strict=True))
    ]


def _compute_group(
    request: Request, streams: RandomStreams | None, number: int, labels: Labels, specs: list[VariableSpec], group: Any
) -> list[np.ndarray]:
    """Call the function for group `number`, in a Dask task; return the data of each variable."""
    # A generator of its own each time, since Dask may compute a task again.
    func = request.func if streams is None else functools.partial(request.func, rng=streams.one(number))
    groups = np.empty(1, object)
    groups[0] = group
    (box,) = run(request, [groups], (0,), lambda: labels, func=_BoxedFunction(func)).tolist()
    if not isinstance(box, Boxed):
        return [gap_data(one) for one in specs]
    try:
        return [_variable_data(box.value, one) for one in specs]
    except (TypeError, ValueError) as error:
        error.add_note(labels.name((0,), None))
        raise


class _BoxedFunction:
    """A function whose results are boxed, so that NumPy stores each as one object."""

    def __init__(self, func: Any) -> None:
        self.__wrapped__ = func  # has the signature

    def __call__(self, *args: Any, **kwargs: Any) -> Boxed:
        return Boxed(self.__wrapped__(*args, **kwargs))


def _variable_data(result: Any, spec: VariableSpec) -> np.ndarray:
    """Data of one variable of a result; raise an error if it is not as specified."""
    expected = "a DataArray" if spec.name is ItsOwn else f"a Dataset with variable {spec.name!r}"
    array = result
    if spec.name is not ItsOwn and isinstance(result, xr.Dataset):
        array = result.data_vars.get(spec.name)
    kind = type(result).__name__
    if not isinstance(array, xr.DataArray) or (spec.name is not ItsOwn and array is result):
        raise TypeError(f"func was to return {expected}, but it returned {kind}")
    if dict(array.sizes) != dict(zip(spec.dims, spec.shape, strict=True)):
        raise ValueError(
            f"func was to return {expected} of sizes {dict(zip(spec.dims, spec.shape, strict=True))}, but "
            f"it returned one of {dict(array.sizes)}; correct output_core_dims and output_sizes, or func"
        )
    if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        raise TypeError(
            f"func was to return {expected} of dtype {spec.dtype}, but it returned one of dtype "
            f"{array.dtype}, which same_kind casting does not allow; correct output_dtypes, or cast in "
            "func"
        )
    return as_told(array.transpose(*spec.dims).to_numpy(), spec.dtype)
