"""NumPy's own tests of `apply_along_axis` and `vectorize`, with parwise's in their place."""

from __future__ import annotations

import gc
import importlib
import inspect
import re

import numpy as np
import pytest

import parwise

NAMES = ("apply_along_axis", "vectorize")

#: Classes, and whether all of it is about these functions.
CLASSES = {
    ("numpy.lib.tests.test_shape_base", "TestApplyAlongAxis"): True,
    ("numpy.lib.tests.test_function_base", "TestVectorize"): True,
    ("numpy.lib.tests.test_regression", "TestRegression"): False,
    ("numpy._core.tests.test_regression", "TestRegression"): False,
}

#: What cannot hold where the function runs in other processes, and why.
ELSEWHERE = {
    "test_cache": "counts calls in a list of the test's process",
}

#: What parwise refuses to do under `isolate`, and why.
REFUSED = {
    "test_subclass": "a subclass of ndarray, which no worker could be given",
    "test_preserve_subclass": "a subclass of ndarray",
    "test_subclass_preservation": "a subclass of ndarray",
    "test_subclasses": "a subclass of ndarray",
    "test_coverage1_ticket_2100": "no argument to map over: NumPy's own loop calls the function once",
    "test_otypes_object_28624": "asks for the very object that the function returned, not a copy",
}

OPTIONS = {
    "default": {},
    "one": {"workers": 1},
    "threads": {"executor": "threads", "workers": 3},
    "processes": {"workers": 2},
    "isolated": {"workers": 2, "isolate": True},
}


class Numpy:
    """The numpy module, with parwise's functions."""

    vectorize = parwise.vectorize
    apply_along_axis = staticmethod(parwise.apply_along_axis)

    def __getattr__(self, name):
        return getattr(np, name)

    def __reduce__(self):
        return importlib.import_module, ("numpy",)


def cases():
    """Tests that use one of the functions, and need nothing else."""
    for (module, name), whole in CLASSES.items():
        tests = getattr(importlib.import_module(module), name)
        for test, function in inspect.getmembers(tests, inspect.isfunction):
            needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            used = whole or re.search(r"\b(apply_along_axis|vectorize)\b", inspect.getsource(function))
            if test.startswith("test") and len(needed) == 1 and used:
                yield pytest.param(module, name, test, id=f"{module.rpartition('.')[2]}-{test}")


CASES = list(cases())


@pytest.mark.parametrize("how", OPTIONS)
@pytest.mark.parametrize(("module", "name", "test"), CASES)
def test_numpys_own(module, name, test, how, monkeypatch, request):
    if how == "processes":
        request.getfixturevalue("eager")
    if how != "default":
        monkeypatch.setattr("parwise._numpy.scalars.should_start_inline", lambda *_: False)
    if how in ("processes", "isolated") and test in ELSEWHERE:
        pytest.skip(ELSEWHERE[test])
    if "refcount" in test:
        gc.collect()  # of small ints, to which much else refers: not while they are counted
    module = importlib.import_module(module)
    uses = []

    def apply_along_axis(*args, **kwargs):
        uses.append(args)
        return parwise.apply_along_axis(*args, **kwargs)

    class vectorize(parwise.vectorize):  # noqa: N801
        def __init__(self, *args, **kwargs):
            uses.append(args)
            super().__init__(*args, **kwargs)

    numpy = Numpy()
    numpy.vectorize, numpy.apply_along_axis = vectorize, apply_along_axis
    monkeypatch.setattr(module, "np", numpy)
    for own in NAMES:
        if hasattr(module, own):
            monkeypatch.setattr(module, own, getattr(numpy, own))
    instance = getattr(module, name)()
    with parwise.options(**OPTIONS[how]):
        if how == "isolated" and test in REFUSED:
            with pytest.raises((TypeError, AssertionError)):
                getattr(instance, test)()
        else:
            getattr(instance, test)()
    assert uses or test == "test_parse_gufunc_signature"


def test_there_are_as_many_as_numpy_has():
    tests = [case.values[2] for case in CASES]
    assert len(tests) > 50
    later = {"test_otypes_object_28624"} if np.lib.NumpyVersion(np.__version__) < "2.3.0" else set()
    assert {*ELSEWHERE, *REFUSED} - later <= set(tests)
