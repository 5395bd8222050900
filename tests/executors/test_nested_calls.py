"""Calls from inside a mapped function, and from the workers of other executors."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import pytest

from parwise import ParwiseError, Pool, parallel_apply, parallel_imap, parallel_map

from ..support.oracle import assert_same


def test_nested_calls(runner):
    def f(x):
        inner = parallel_apply(lambda y: y + x, np.arange(3.0), isolate=True, workers=2, retries=1)
        with_gap = parallel_apply(lambda y: y + x, np.arange(3.0), errors="ignore", timeout=60)
        return inner.sum() + with_gap.sum()

    assert_same(parallel_apply(f, np.arange(6.0), **runner), np.arange(6.0) * 6 + 6)


@pytest.mark.parametrize("prepared", ["initializer", "finalizer"])
def test_a_pool_whose_workers_are_prepared(runner, prepared):
    """In the process of the mapped function nobody has called the initializer, and nobody would call the finalizer."""

    def refused(x):
        calls = [
            lambda: pool.apply(abs, (x,)),
            lambda: list(pool.map(abs, [x])),
            lambda: list(pool.imap(abs, [x])),
            lambda: parallel_map(abs, [x], executor=pool),
            lambda: list(parallel_imap(abs, [x], executor=pool)),
            lambda: parallel_apply(np.abs, np.ones(3), executor=pool),
        ]
        found = 0
        with Pool(1, **{prepared: print}) as pool:
            for call in calls:
                try:
                    call()
                except ParwiseError as error:
                    found += "within a mapped function" in str(error)
        return found == len(calls)

    assert parallel_apply(refused, np.arange(4.0), **runner).all()


@pytest.mark.parametrize("count", [1, 40])
@pytest.mark.parametrize("how", ["executor='serial'", "executor='threads', workers=2", "workers=2"])
def test_functions_that_are_mapped_as_a_module_is_imported_are_mapped_functions(tmp_path, monkeypatch, how, count):
    (tmp_path / "mapping.py").write_text(
        "from parwise import ParwiseError, Pool, parallel_map\n"
        "def refused(x):\n"
        "    with Pool(1, initializer=print) as pool:\n"
        "        try:\n"
        "            list(pool.map(abs, [x]))\n"
        "        except ParwiseError:\n"
        "            return True\n"
        f"R = parallel_map(refused, range({count}), {how})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mapping", raising=False)
    module = importlib.import_module("mapping")
    monkeypatch.delitem(sys.modules, "mapping")
    assert [True] * count == module.R


def apply_inside(n):
    """Call parwise in a worker of another executor, which imports this module."""
    return parallel_apply(np.cumsum, np.ones((n, 3)), isolate=True, workers=2).tolist()


def test_calls_from_workers_of_others(process_executor, thread_executor, dask_client):
    want = [[1.0, 2.0, 3.0]] * 5
    assert process_executor.submit(apply_inside, 5).result() == want
    assert thread_executor.submit(apply_inside, 5).result() == want
    assert dask_client.submit(apply_inside, 5, pure=False).result() == want


def test_another_thread_is_importing_multiprocessing(monkeypatch):
    """Its module is there then, and empty."""
    monkeypatch.setitem(sys.modules, "multiprocessing.process", types.ModuleType("multiprocessing.process"))
    assert parallel_apply(np.negative, np.arange(3.0), executor="serial").tolist() == [0.0, -1.0, -2.0]
