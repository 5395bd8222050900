"""What kind of executor the option `executor` is given; no other library is imported to tell."""

from __future__ import annotations

import sys
from typing import Any


def is_dask_client(value: Any) -> bool:
    """True for a `dask.distributed.Client`; does not import dask."""
    return is_a(value, "distributed", "Client")


def is_dask_executor(value: Any) -> bool:
    """True for the executor of a Dask client, which holds options of `Client.submit`; does not import dask."""
    return is_a(value, "distributed.cfexecutor", "ClientExecutor")


def is_pool(value: Any) -> bool:
    """True for a `parwise.Pool`; does not import its module."""
    return is_a(value, "parwise._api.pool", "Pool")


def is_thread_pool(value: Any) -> bool:
    """True for a `concurrent.futures.ThreadPoolExecutor`; does not import its module."""
    return is_a(value, "concurrent.futures.thread", "ThreadPoolExecutor")


def is_a(value: Any, module: str, name: str) -> bool:
    """True for an instance of a class, whose module must have been imported to make it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def executor_name(executor: Any) -> str:
    """The executor's name, or that of its class."""
    return executor if isinstance(executor, str) else type(executor).__name__
