"""Variables of netCDF4, which unpack and mask what they read unless they are told not to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from parwise import options, parallel_apply

from ..support.oracle import assert_same

netcdf = pytest.importorskip("netCDF4")  # here, since it sets environment variables

A = np.random.default_rng(0).normal(size=(12, 4))


@pytest.fixture
def packed(tmp_path):
    with netcdf.Dataset(tmp_path / "packed.nc", "w") as file:
        file.createDimension("t", 12)
        file.createDimension("x", 5)
        for name, options in {"gaps": {"fill_value": -99}, "whole": {}}.items():
            variable = file.createVariable(name, "i2", ("t", "x"), chunksizes=(5, 5), **options)
            variable.scale_factor, variable.add_offset = 0.5, 2.0
            values = np.arange(60).reshape(12, 5) * 0.5
            variable[:] = np.ma.masked_less(values, 4) if name == "gaps" else values
        series = file.createVariable("series", "f4", ("t",))
        series[:] = np.arange(12)
    with netcdf.Dataset(tmp_path / "packed.nc") as file:
        yield file


@pytest.mark.pairs
@pytest.mark.parametrize("name", ["gaps", "whole", "series"])
@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize("auto", ["mask", "scale", "both", "neither"])
def test_variables_of_netcdf4_read_as_in_the_loop(packed, name, always, auto, runner):
    variable = packed[name]
    variable.set_always_mask(always)
    variable.set_auto_mask(auto in ("mask", "both"))
    variable.set_auto_scale(auto in ("scale", "both"))

    def func(x):
        return type(x).__name__, str(x.dtype), float(np.ma.filled(np.ma.sum(x), -1)), int(np.ma.count(x))

    got = parallel_apply(func, variable, **runner)
    want = [func(variable[k]) for k in range(12)]
    if name == "series" and auto not in ("mask", "both"):  # 0-d arrays in the loop, numbers here
        want = [("float32" if kind == "ndarray" else kind, *rest) for kind, *rest in want]
    assert_same(got, tuple(np.asarray(list(column)) for column in zip(*want, strict=True)))


def test_sources_can_be_mixed(packed, runner):
    with options(**runner):
        got = parallel_apply(lambda x, y, z: x.count() + y.sum() + float(z), packed["gaps"], A, packed["series"])
    want = [packed["gaps"][k].count() + A[k].sum() + float(packed["series"][k]) for k in range(12)]
    assert_same(got, np.asarray(list(itertools.chain(want))))
