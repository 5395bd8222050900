"""Weak references that a function holds: their objects live in workers too."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from parwise import parallel_apply, parallel_map

from ..support.functions import ISOLATED


class Node:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("others", [False, True], ids=["nobody else", "the function too"])
def test_objects_of_weak_references_live_in_workers(others):
    """They died as soon as they had come: a function that looks whether its object is there returned something else."""
    node, key = Node(5), Node(6)
    reference, values, keys = weakref.ref(node), weakref.WeakValueDictionary(), weakref.WeakKeyDictionary()
    values["node"], keys[key] = node, 7
    held = (node, key) if others else None

    def f(x):
        gc.collect()
        found = reference()
        return x, None if found is None else found.value, [one.value for one in values.values()], list(keys.values())

    assert (held is None) != others
    want = [f(x) for x in range(6)]
    assert want[0] == (0, 5, [5], [7])
    assert parallel_map(f, range(6), **ISOLATED) == want


def test_dead_references_stay_dead():
    reference = weakref.ref(Node(5))
    gc.collect()
    assert parallel_map(lambda x: reference() is None, range(4), **ISOLATED) == [True] * 4


def test_references_end_with_their_objects_owner():
    """What a worker keeps is let go with the reference."""

    def f(x):
        here = Node(x)
        again = weakref.ref(here)
        del here
        gc.collect()
        return float(again() is None)

    assert parallel_apply(f, np.arange(4.0), **ISOLATED).tolist() == [1.0] * 4


def test_a_reference_that_returns():
    """The caller gets one that is alive, and passes it on."""
    node = Node(5)
    (back, *_) = parallel_map(lambda x, r: r, range(3), args=(weakref.ref(node),), **ISOLATED)
    gc.collect()
    assert back().value == 5
    assert parallel_map(lambda x: back().value, range(3), **ISOLATED) == [5] * 3


def test_finalizers_are_refused():
    """A copy would be one that has been called."""
    node = Node(5)
    finalizer = weakref.finalize(node, print)
    with pytest.raises(TypeError, match=r"weakref\.finalize"):
        parallel_map(lambda x: finalizer.alive, range(4), **ISOLATED)
    finalizer.detach()
