"""The backend "parwise" of joblib, and so of scikit-learn's ``n_jobs``.

``import parwise.joblib`` registers it.

Functions run in worker processes of parwise. Every function can be sent, also a lambda or one from a notebook. A worker
that dies raises a `parwise.WorkerDiedError`; no call is left waiting. Workers use as many BLAS threads as this process,
which keeps the bits of the plain loop, and share the CPUs out to OpenMP's; ``inner_max_num_threads`` sets another
number for both. ``initializer`` and ``initargs`` are those of `parwise.Pool`. A nested ``Parallel`` that asks for more
than one job runs in threads of its worker.

Examples
--------
>>> import joblib
>>> import parwise.joblib
>>> with joblib.parallel_config(backend="parwise", n_jobs=2):
...     joblib.Parallel()(joblib.delayed(pow)(x, 2) for x in range(5))
[0, 1, 4, 9, 16]
"""

from __future__ import annotations

from ._api.joblib_backend import ParwiseBackend

__all__ = ["ParwiseBackend"]
