"""Calls of one block, which end without a queue and an output array: as each of Dask's blocks does."""

from __future__ import annotations

import numpy as np
import pytest

from parwise import parallel_apply, report

from ..support.oracle import assert_same

A = np.arange(24.0).reshape(6, 4) / 7


def one_block(func, a=A, **how):
    return parallel_apply(func, a, vectorized=True, chunk=a.shape[how.get("axis", 0)], **how)


@pytest.mark.parametrize(
    "func",
    [
        np.negative,
        lambda b: np.asfortranarray(b),
        lambda b: b.astype(">f4"),
        lambda b: b > 1,
        lambda b: b.astype(str),
        lambda b: b.astype(object),
        lambda b: np.zeros(b.shape, "M8[s]"),
        lambda b: b[:3],
        lambda b: b.tolist(),
    ],
    ids=["numbers", "fortran", "swapped", "bool", "text", "objects", "dates", "shorter", "list"],
)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_result_is_that_of_several_blocks(func, axis):
    got = one_block(func, axis=axis)
    assert_same(got, np.concatenate([func(A)], axis=axis))
    assert got.flags.c_contiguous


def test_tuples_and_out():
    low, high = one_block(lambda b: (b - 1, b + 1))
    assert_same(low, A - 1)
    assert_same(high, A + 1)
    out = np.empty_like(A)
    assert one_block(np.negative, out=out) is out
    assert_same(out, -A)


def test_the_function_may_use_the_memory_of_its_result_again():
    memory = np.empty_like(A)

    def f(b):
        memory[...] = b
        return memory

    first = one_block(f)
    one_block(f, -A)
    assert_same(first, A)


def test_the_function_may_write_to_its_block():
    a = A.copy()

    def f(b):
        b += 1
        return b

    assert_same(one_block(f, a), A + 1)
    assert_same(a, A)


def test_errors():
    def f(b):
        raise KeyError("no")

    with pytest.raises(KeyError, match="no") as found:
        one_block(f)
    assert found.value.__notes__ == ["in block 0:6 along axis 0"]
    with pytest.warns(RuntimeWarning, match="KeyError"):
        assert np.isnan(one_block(f, errors="ignore")).all()
    with pytest.raises(ValueError, match="must keep the mapped axis"):
        one_block(lambda b: b[0], axis=1)
    with pytest.raises(ValueError, match="out has shape"):
        one_block(lambda b: b[:3], out=np.empty_like(A))


def test_the_report_knows_of_it():
    with report() as r:
        one_block(np.negative)
    (call,) = r.to_dict()["calls"]
    assert call["elements"] == 6
    assert call["caller"]["tasks"] == 1
    assert call["f_seconds"] > 0
