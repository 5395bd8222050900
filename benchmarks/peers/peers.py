"""Ways to map a function over an array with some workers, each as its users would.

A peer is opened once and then applied any number of times, so that it may keep
what it can between calls. `Peer.load` does its imports, so that they can be
left out of what is timed; nothing is imported before.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from .work import WORKERS, Element, loop

#: Applies an element function to an array.
Apply = Callable[[Element, np.ndarray], np.ndarray]
#: Gets a peer ready; the time of this counts where the first call does.
Open = Callable[[], AbstractContextManager[Apply]]


@dataclass(frozen=True)
class Peer:
    """One way to do it.

    Attributes
    ----------
    title : str
    module : str
        What has to be installed.
    load : callable
        Does the imports and returns what opens the peer.
    """

    title: str
    module: str
    load: Callable[[], Open]

    @property
    def installed(self) -> bool:
        """Whether it can be loaded."""
        return importlib.util.find_spec(self.module) is not None


def _load_loop() -> Open:
    return lambda: contextlib.nullcontext(loop)


def _load_forks() -> Open:
    return lambda: contextlib.nullcontext(bare_forks)


def bare_forks(func: Element, array: np.ndarray) -> np.ndarray:
    """Compute one part here and one in each forked child, with nothing around it.

    The result lies in memory that all share.
    """
    out = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
    own, *others = np.array_split(np.arange(len(array)), WORKERS)
    children = [_fork(out, func, array, part) for part in others]
    _fill(out, func, array, own)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(statuses):
        raise RuntimeError("a forked part failed")
    return out


def _fork(out: np.ndarray, func: Element, array: np.ndarray, indices: np.ndarray) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _fill(out, func, array, indices)
            status = 0
        finally:
            os._exit(status)
    return child


def _fill(out: np.ndarray, func: Element, array: np.ndarray, indices: np.ndarray) -> None:
    for i in indices:
        out[i] = func(array[i])


def _load_parwise() -> Open:
    from parwise import parallel_apply

    return lambda: contextlib.nullcontext(functools.partial(parallel_apply, workers=WORKERS))


def _load_joblib() -> Open:
    from joblib import Parallel, delayed

    @contextlib.contextmanager
    def opened() -> Iterator[Apply]:
        with Parallel(n_jobs=WORKERS) as parallel:
            yield lambda func, array: np.asarray(parallel(delayed(func)(x) for x in array))

    return opened


def _load_multiprocessing() -> Open:
    import multiprocessing.pool  # otherwise imported as the pool is made

    context = multiprocessing.get_context("fork")

    @contextlib.contextmanager
    def opened() -> Iterator[Apply]:
        with context.Pool(WORKERS) as pool:
            yield lambda func, array: np.asarray(pool.map(func, array))

    return opened


def _load_futures() -> Open:
    from concurrent.futures import ProcessPoolExecutor

    @contextlib.contextmanager
    def opened() -> Iterator[Apply]:
        with ProcessPoolExecutor(WORKERS) as executor:

            def apply(func: Element, array: np.ndarray) -> np.ndarray:
                chunksize = max(1, len(array) // (4 * WORKERS))
                return np.asarray(list(executor.map(func, array, chunksize=chunksize)))

            yield apply

    return opened


def _load_mpire() -> Open:
    from mpire import WorkerPool

    @contextlib.contextmanager
    def opened() -> Iterator[Apply]:
        with WorkerPool(WORKERS, keep_alive=True) as pool:

            def apply(func: Element, array: np.ndarray) -> np.ndarray:
                # Given an array, mpire hands over runs of it and joins the results.
                # For many scalars that is far faster than one element at a
                # time, but slower for rows and for few elements.
                if array.ndim == 1 and len(array) > 8 * WORKERS:
                    return pool.map(functools.partial(loop, func), array)
                return np.asarray(pool.map(func, list(array), concatenate_numpy_output=False))

            yield apply

    return opened


PEERS = {
    "loop": Peer("plain loop", "numpy", _load_loop),
    "forks": Peer("bare forks", "numpy", _load_forks),
    "parwise": Peer("parwise", "parwise", _load_parwise),
    "joblib": Peer("joblib", "joblib", _load_joblib),
    "multiprocessing": Peer("mp.Pool", "multiprocessing", _load_multiprocessing),
    "futures": Peer("futures", "concurrent.futures", _load_futures),
    "mpire": Peer("mpire", "mpire", _load_mpire),
}
