"""Fixtures for labelled arrays; Dask computes in the calling thread."""

from __future__ import annotations

import contextlib

import dask
import pytest

from ..support.labelled import make_cube

with contextlib.suppress(ImportError):
    import netCDF4  # noqa: F401 - sets environment variables when it is imported


@pytest.fixture(autouse=True)
def _no_threads_of_dask():
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def cube():
    return make_cube()
