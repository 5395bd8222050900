"""Functions that end their worker, and the call that must be right afterwards."""

from __future__ import annotations

import os
import time

import numpy as np

from parwise import parallel_apply

from .functions import ISOLATED
from .oracle import assert_same

#: Elements of a call.
N = 40


def killed_by(signum):
    def die():
        os.kill(os.getpid(), signum)
        time.sleep(60)

    return die


def in_the_function(die, index):
    def f(x):
        if x == index:
            die()
        return float(x)

    return f


def assert_next_call_is_right():
    a = np.arange(N * 3.0).reshape(N, 3)
    assert_same(parallel_apply(np.cumsum, a, **ISOLATED), a.cumsum(axis=1))


class Once:
    """A function that calls `act` the first time that some worker computes an element."""

    def __init__(self, folder, act, every=1):
        self.folder, self.act, self.every = str(folder), act, every

    def __call__(self, x):
        if int(x) % self.every == 0:
            try:
                os.close(os.open(f"{self.folder}/{x}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                self.act()
        return x * 2.5


def throw(kind):
    raise kind
