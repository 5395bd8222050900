"""Threads of BLAS: counted, limited for one thread alone, and told from a caller's own threads."""

from __future__ import annotations

import os
import re
import textwrap
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl

from parwise import parallel_apply
from parwise._system import blas
from parwise._system.blas import ThreadWatch, is_local, local_threads, with_local_threads

from ..support.functions import slowly
from ..support.scripts import run_script

A = np.arange(6.0)


def test_thread_watch_sees_only_foreign_threads():
    watch = ThreadWatch()
    watch.suspicious = True
    deadline = time.monotonic() + 10
    while watch.busy is not False and time.monotonic() < deadline:
        with watch:  # BLAS threads of earlier tests come to rest after some 20 ms
            sum(range(1000))
    assert watch.busy is False
    assert not watch.suspicious


@pytest.mark.parametrize(
    ("state", "slept", "at_work"), [("R (running)", 0, False), ("R (running)", 1, True), ("S (sleeping)", 1, False)]
)
def test_threads_that_spin_since_they_began_are_not_at_work(state, slept, at_work, monkeypatch):
    watch = ThreadWatch()
    thread = threading.get_native_id()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "get_native_id", lambda: -1)
        patch.setattr(threading, "enumerate", list)
        real = watch._activity()[str(thread)]
    told = re.sub(r"State:\t[^ ]+ \([a-z ]+\)", f"State:\t{state}", real)
    told = re.sub(r" voluntary_ctxt_switches:\t\d+", f" voluntary_ctxt_switches:\t{slept}", told)
    monkeypatch.setattr(watch, "_activity", lambda: {"7": told})
    assert watch.at_work() == at_work
    assert watch.running() == ("R" in state)


def test_local_threads_belong_to_the_caller():
    """OpenMP counts threads for each thread by itself."""

    class Library:
        user_api = "openmp"
        filepath = "libfake.so"

        def __init__(self):
            self.numbers = threading.local()

        @property
        def num_threads(self):
            return getattr(self.numbers, "n", 2)

        def set_num_threads(self, number):
            self.numbers.n = number

    fake = Library()
    assert is_local(fake)
    before = blas.libraries
    blas.libraries = lambda: [fake]
    try:
        fake.set_num_threads(1)
        assert local_threads() == {"libfake.so": 1}
        seen = parallel_apply(lambda x: (slowly(x), fake.num_threads)[1], A, executor="threads", workers=3)
        assert set(seen.tolist()) == {1}
        with with_local_threads({"libfake.so": 3}):
            assert fake.num_threads == 3
        assert fake.num_threads == 1
        # Of a library that nobody has looked at, only the caller's own thread can tell the number.
        blas._found = (0, [])
        assert local_threads(look=False) is None
    finally:
        blas.libraries = before


# A BLAS that NumPy has and threadpoolctl does not find

#: What threadpoolctl 3.4 is to the OpenBLAS of NumPy 2: it knows no library of this name.
NOT_FOUND = """
import threadpoolctl
threadpoolctl.OpenBLASController.filename_prefixes = ("libunknown",)
"""

needs_openblas = pytest.mark.skipif(
    "openblas" not in next(blas._numpy_blas()), reason="NumPy was not built with OpenBLAS"
)


@needs_openblas
def test_blas_that_is_not_found_is_told_once_by_the_first_call_with_workers():
    code = """
        import multiprocessing, time, warnings
        from concurrent.futures import ProcessPoolExecutor
        import numpy as np
        import parwise
        from parwise._system import blas

        a = np.arange(6.0)

        def slow(x):
            time.sleep(0.1)
            return x

        def mapped(**options):
            parwise.parallel_apply(slow, a, **options)

        def submitted():
            with parwise.Pool(2) as pool:
                pool.submit(slow, 1).result()

        def foreign():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
                mapped(executor=executor)

        ways = {
            "workers": lambda: mapped(workers=2),
            "isolated": lambda: mapped(workers=2, isolate=True),
            "one thread": lambda: mapped(workers=2, isolate=True, blas_threads=1),
            "items": lambda: list(parwise.parallel_imap(slow, range(6), workers=2)),
            "submitted": submitted,
            "foreign": foreign,
        }
        plain = [{"executor": "serial"}, {"executor": "threads", "workers": 2}, {"workers": 1}]
        if __name__ == "__main__":
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                parwise.parallel_apply(np.negative, a)
                for options in plain:
                    mapped(**options)
            for name, way in ways.items():
                blas._told = False
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    way()
                    way()
                for one in caught:
                    print(name, one.category.__name__, one.message, sep=": ")
        """
    done = run_script(NOT_FOUND + textwrap.dedent(code))
    assert done.stderr == ""
    told = [line.split(": ", 2) for line in done.stdout.splitlines()]
    assert [name for name, *_ in told] == ["workers", "isolated", "one thread", "items", "submitted", "foreign"]
    assert {category for _, category, _ in told} == {"ReproducibilityWarning"}
    (text,) = {text for *_, text in told}
    assert next(blas._numpy_blas()) in text
    assert f"threadpoolctl {threadpoolctl.__version__} does not find" in text
    assert "set OPENBLAS_NUM_THREADS=1 before Python starts" in text


@needs_openblas
def test_warning_is_of_the_line_of_the_user():
    code = """
        import numpy, parwise
        parwise.parallel_apply(numpy.negative, numpy.arange(6.0), isolate=True, workers=2)
        """
    done = run_script(NOT_FOUND + textwrap.dedent(code))
    assert done.returncode == 1
    *_, line = [line for line in done.stderr.splitlines() if line.startswith("  File")]
    assert "parwise/_system/blas.py" in line
    assert 'File "<stdin>", line 6, in <module>' in done.stderr


@needs_openblas
def test_remedy_of_a_blas_that_is_not_found_ends_the_warning():
    code = """
        import numpy, parwise
        parwise.parallel_apply(numpy.negative, numpy.arange(6.0), isolate=True, workers=2)
        """
    done = run_script(NOT_FOUND + textwrap.dedent(code), env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert (done.returncode, done.stderr) == (0, "")


@needs_openblas
def test_verify_names_a_blas_that_is_not_found():
    code = """
        import os, warnings
        import numpy, parwise
        warnings.simplefilter("ignore", parwise.ReproducibilityWarning)
        here = os.getpid()
        try:
            parwise.parallel_apply(lambda x: x + (os.getpid() == here), numpy.ones(4), verify=True)
        except parwise.NotReproducibleError as error:
            print(error)
        """
    done = run_script(NOT_FOUND + textwrap.dedent(code))
    assert "which threadpoolctl" in done.stdout, done.stderr


@needs_openblas
def test_machine_page_names_a_blas_that_is_not_found():
    code = """
        from parwise import __main__
        __main__.cpu_count = lambda: 1
        print(*__main__.describe(), sep="\\n")
        """
    done = run_script(NOT_FOUND + textwrap.dedent(code))
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert lines["BLAS"] == "none found"
    assert "which threadpoolctl" in lines["threads"]


@pytest.mark.parametrize(
    ("built", "found", "told"),
    [
        (("scipy-openblas", "scipy-openblas"), ["openblas"], None),
        (("none", "lapack_lite"), [], None),
        ((None, None), [], None),
        (("blas", "lapack"), [], None),
        (("mkl-dynamic-lp64-seq", "mkl-dynamic-lp64-seq"), [], None),
        (("openblas", "openblas"), [], "OPENBLAS_NUM_THREADS"),
        (("openblas", "openblas"), ["openmp", "mkl", ""], "OPENBLAS_NUM_THREADS"),
        (("mkl-sdl", "mkl-sdl"), ["openblas"], "MKL_NUM_THREADS"),
        (("blis", "lapack"), [], "BLIS_NUM_THREADS"),
        (("flexiblas", "flexiblas"), [], "OMP_NUM_THREADS"),
        (("Accelerate", "Accelerate"), ["openblas"], "VECLIB_MAXIMUM_THREADS"),
        (("blas", "openblas"), [], "OPENBLAS_NUM_THREADS"),
    ],
)
def test_which_blas_is_told(built, found, told, monkeypatch):
    """`found` are libraries of threadpoolctl; another library's OpenBLAS is not NumPy's MKL."""
    parts = {kind: {"name": name} if name else {} for kind, name in zip(("blas", "lapack"), built, strict=True)}
    monkeypatch.setattr(np, "show_config", lambda mode: {"Build Dependencies": parts})
    monkeypatch.setattr(blas, "libraries", lambda: [SimpleNamespace(internal_api=one) for one in found])
    for variable in blas.THREAD_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    text = blas.unknown_blas.__wrapped__()
    assert text is None if told is None else f"{told}=1 before Python starts" in text
