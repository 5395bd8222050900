"""User code that type checkers refuse, in each line that ends in ``# wrong`` and in no other."""

from __future__ import annotations

import numpy as np

import parwise
from parwise import parallel, parallel_apply, parallel_imap, parallel_map


def scaled(row: np.ndarray, by: float = 1.0) -> float:
    return float(row.sum() * by)


def length(name: str) -> int:
    return len(name)


a = np.ones((3, 4))

parallel_apply(scaled, a, worker=2)  # wrong
parallel_apply(scaled, a, workers="2")  # wrong
parallel_apply(scaled, a, executor="process")  # wrong
parallel_apply(scaled, a, errors="skip")  # wrong
parallel_apply(scaled, a, verify="all")  # wrong
parallel_apply(scaled, a, progress=1.5)  # wrong
parallel_apply(scaled, a, axis="time")  # wrong
parallel_apply(scaled, a, args=2.0)  # wrong
text: str = parallel_apply(scaled, a)  # wrong
names: list[str] = parallel_map(length, ["a"])  # wrong
parallel_map(length, 3)  # wrong
parallel_imap(length, ["a"], ordered="no")  # wrong
parallel_map(length, ["a"], ordered=False)  # wrong
parwise.options(timeout="1 s")  # wrong
parwise.Pool(worker=2)  # wrong
parwise.Pool(2).starmap(pow, [(2, 3)])  # wrong
parallel(workers="2")  # wrong


@parallel
def quotient(x: float, by: float) -> float:
    return x / by


quotient("six", 3.0)  # wrong
quotient(6.0)  # wrong
quotient.parallel([6.0], by="three")  # wrong
quotient.parallel([6.0], 3.0, 4.0)  # wrong
quotient.parallel(6.0, 3.0)  # wrong
quotient.paralel([6.0], 3.0)  # wrong
whole: list[int] = quotient.parallel([6.0], 3.0)  # wrong
