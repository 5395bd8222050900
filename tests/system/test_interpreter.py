"""The GIL's switch interval is shortened during a call and restored after it."""

from __future__ import annotations

import sys
import threading

import numpy as np

from parwise import parallel_apply
from parwise._system.interpreter import short_switch_interval

from ..support.functions import slowly

A = np.arange(6.0)


def test_switch_interval_is_put_back_by_the_last():
    before = sys.getswitchinterval()
    short_switch_interval.acquire()
    other = threading.Thread(target=short_switch_interval.acquire)
    other.start()
    other.join()
    short_switch_interval.release()
    assert sys.getswitchinterval() < before
    short_switch_interval.release()
    assert sys.getswitchinterval() == before


def test_switch_interval_is_put_back_before_the_call_returns():
    """The interval is restored before the call returns, and not later by a helper thread that ends."""
    before = sys.getswitchinterval()
    seen = set()

    def f(x):
        slowly(x)
        seen.add(sys.getswitchinterval())
        return x

    for _ in range(20):
        parallel_apply(f, A[:2], workers=2, verify=False)
        assert sys.getswitchinterval() == before
    assert min(seen) < before
