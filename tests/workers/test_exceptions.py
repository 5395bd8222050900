"""Exceptions travel from a worker to the caller whole, or as a `RemoteError` that describes them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import parwise
from parwise import parallel_apply

from ..support.faults import assert_next_call_is_right, in_the_function, throw
from ..support.functions import ISOLATED


def test_exception_that_cannot_be_pickled():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} {b}")
            self.lock = threading.Lock()

    def f(x):
        raise Odd(1, 2)

    with pytest.raises(parwise.RemoteError, match=r"Odd: 1 2") as caught:
        parallel_apply(f, np.arange(5), **ISOLATED)
    assert caught.value.type_name.endswith("Odd")


class Custom(Exception):
    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Locked(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


def raised(make, **options):
    """Return the exception that a call raises whose function raises ``make()`` for element 3."""

    def f(x):
        if x == 3:
            raise make()
        return x

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        parallel_apply(f, np.arange(12), **ISOLATED, **options)
    assert_next_call_is_right()
    return caught.value


def test_exceptions_travel_whole():
    error = raised(lambda: Custom(7, reason="because"))
    assert (type(error), error.code, error.reason, str(error)) == (Custom, 7, "because", "7: because")
    assert "in element 3 along axis 0" in error.__notes__
    error = raised(lambda: Speechless())
    assert type(error) is Speechless
    error = raised(lambda: ValueError("x" * 10_000_000))
    assert error.args == ("x" * 10_000_000,)
    error = raised(lambda: OSError(2, "nothing", "file"))
    assert (type(error), error.errno, error.filename) == (FileNotFoundError, 2, "file")
    error = raised(lambda: ExceptionGroup("both", [ValueError("one"), KeyError("two")]))
    assert [type(one) for one in error.exceptions] == [ValueError, KeyError]


def test_exceptions_that_cannot_travel():
    error = raised(lambda: Locked("held"))
    assert type(error) is parwise.RemoteError
    assert error.type_name.endswith("Locked")
    assert "held" in str(error)
    assert "in f" in str(error.__cause__)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration])
def test_exceptions_that_mean_something_to_python(kind):
    error = raised(lambda: kind("text"))
    assert type(error) is kind
    if kind is not StopIteration:  # whose arguments `map` throws away
        assert error.args == ("text",)
    for executor in ("serial", "threads"):
        with pytest.raises(kind):
            parallel_apply(in_the_function(lambda: throw(kind), 3), np.arange(12), executor=executor)
