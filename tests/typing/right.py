"""User code that type checkers accept; `test_typing.py` has them read it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import assert_type

import numpy as np

import parwise
from parwise import parallel, parallel_apply, parallel_imap, parallel_map


def scaled(row: np.ndarray, by: float = 1.0) -> float:
    return float(row.sum() * by)


def extremes(row: np.ndarray) -> tuple[float, float]:
    return float(row.min()), float(row.max())


def length(name: str) -> int:
    return len(name)


a = np.ones((3, 4))

assert_type(parallel_apply(scaled, a), np.ndarray)
assert_type(parallel_apply(scaled, a, axis=(0, 1), args=(2.0,), workers=2, progress="reading"), np.ndarray)
low, high = parallel_apply(extremes, a, errors="ignore", timeout=2)
low.mean(), high.mean()
target = np.ones(3, np.float32)
kept = parallel_apply(scaled, a, out=target)
kept = target
parallel_apply(lambda row: row.max(), a, executor="threads")
parallel_apply(np.sum, a, verify="full", blas_threads="inherit")

assert_type(parallel_map(length, ["a", "b"], retries=1, setup=lambda: None), list[int])
assert_type(parallel_imap(length, iter(["a"]), ordered=False), Iterator[int])
assert_type(parallel_map(pow, [(2, 3)], starmap=True)[0], int)
with ThreadPoolExecutor(2) as executor:
    parallel_map(length, ["a"], executor=executor)
with parwise.Pool(workers=2) as pool, parwise.options(progress=lambda done, total: None):
    parallel_map(length, ["a"], executor=pool)
    assert_type(pool.submit(length, "a").result(), int)
    assert_type(pool.imap(length, ["a"], ordered=False, progress=True), Iterator[int])


@parallel
def quotient(x: float, by: float) -> float:
    return x / by


@parallel(workers=2, progress="dividing")
def halved(x: float) -> float:
    return x / 2


assert_type(quotient(6.0, by=3.0), float)
assert_type(quotient(x=6.0, by=3.0), float)
assert_type(quotient.parallel([6.0, 9.0], 3.0), list[float])
assert_type(quotient.parallel([6.0, 9.0], by=3.0), list[float])
assert_type(halved.parallel(range(3)), list[float])
quotient.parallel(a, 2.0).mean()
