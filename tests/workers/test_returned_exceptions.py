"""Exceptions of every make, returned, held and raised; and results that cannot be sent or rebuilt."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from operator import attrgetter

import pytest

from parwise import Pool, RemoteError, parallel_imap, parallel_map

from ..support.functions import ISOLATED


class Told(Exception):
    count = 0

    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


class Doubled(Exception):
    def __init__(self, code):
        super().__init__(f"error {code}")


class Slots(Exception):
    __slots__ = ("__own", "a", "empty")

    def __init__(self, a):
        self.a = self.__own = a

    @property
    def own(self):
        return self.__own


class Path(OSError):
    def __init__(self, number, path):
        super().__init__(number, "bad", path)
        self.path = path


class Decoding(UnicodeDecodeError):
    def __init__(self, start):
        super().__init__("utf8", b"abc", start, 2, "why")


class Group(ExceptionGroup):
    def __new__(cls, message, errors, code):
        made = super().__new__(cls, message, errors)
        made.code = code
        return made

    def derive(self, errors):
        return Group(self.message, errors, self.code)


class Stop(StopIteration):
    def __init__(self, value, more):
        super().__init__(value)
        self.more = more


class Exit(SystemExit):
    def __init__(self, *, code):
        super().__init__(code)


class Attribute(AttributeError):
    def __init__(self, name):
        super().__init__("no", name=name, obj=self)


class Both(LookupError, OSError):
    def __init__(self, more):
        super().__init__(5, "five")
        self.more = more


class Reduced(Exception):
    def __init__(self, a, b):
        super().__init__(a)
        self.a, self.b = a, b

    def __reduce__(self):
        return Reduced, (self.a, self.b)


class Changed(ValueError):
    def __init__(self):
        super().__init__("before")
        self.args = ("after", 1)


MAKE = {
    "keyword": lambda: Told(3, detail="d"),
    "changed text": lambda: Doubled(4),
    "slots": lambda: Slots(5),
    "OSError": lambda: Path(2, "p"),
    "UnicodeError": lambda: Decoding(1),
    "KeyError": lambda: KeyError("q"),
    "group": lambda: Group("m", [Told(1, detail="x"), Doubled(2)], 9),
    "StopIteration": lambda: Stop(3, 4),
    "SystemExit": lambda: Exit(code=7),
    "AttributeError": lambda: Attribute("nm"),
    "two bases": lambda: Both(8),
    "__reduce__": lambda: Reduced(1, 2),
    "args": Changed,
}
NAMES = ("errno", "filename", "code", "value", "name", "a", "own", "start", "encoding", "path", "more", "empty")


def make(name):
    error = MAKE[name]()
    error.add_note("note")
    return error


def chained(name):
    try:
        try:
            raise Doubled(7)
        except Doubled as cause:
            raise make(name) from cause
    except BaseException as error:
        return error


def seen(error, *, chain=True):
    """All that can be seen of an exception."""
    if error is None:
        return None
    inner = [seen(one) for one in getattr(error, "exceptions", ())]
    links = [seen(error.__cause__), seen(error.__context__), error.__suppress_context__] if chain else []
    attributes = {name: value for name, value in vars(error).items() if name != "__notes__"}
    notes = getattr(error, "__notes__", [])[:1]
    own = [getattr(error, name, None) for name in NAMES]
    return type(error), repr(error.args), str(error), attributes, notes, own, inner, links


@pytest.fixture(params=["isolated", "eager", "pool", "submit", "forked"])
def mapped(request):
    """Map in one of some ways; returns a list."""
    way = request.param
    if way in ("pool", "submit"):
        with Pool(2) as pool:
            if way == "pool":
                yield lambda f, items: parallel_map(f, items, executor=pool)
            else:
                yield lambda f, items: [future.result() for future in [pool.submit(f, one) for one in items]]
    elif way == "forked":
        with ProcessPoolExecutor(2) as executor:
            yield lambda f, items: parallel_map(f, items, executor=executor)
    else:
        if way == "eager":
            request.getfixturevalue("eager")
        yield lambda f, items: parallel_map(f, items, workers=2, isolate=way == "isolated")


def test_returned_exceptions_are_those_of_the_loop(mapped):
    Told.count = 5
    items = list(MAKE) * 2
    assert [seen(one) for one in mapped(make, items)] == [seen(make(name)) for name in items]
    got = mapped(lambda name: {"error": [chained(name)]}, items)
    assert [seen(one["error"][0]) for one in got] == [seen(chained(name)) for name in items]
    assert Told.count == 5


def test_a_cause_that_cannot_be_sent_is_left_out():
    def f(k):
        held = Doubled(k)
        held.stream = (one for one in range(3))
        error = Told(k, detail="d")
        error.__cause__, error.__context__ = held, error
        return error

    error = parallel_map(f, [1], **ISOLATED)[0]
    assert (error.code, error.__cause__) == (1, None)


@pytest.mark.parametrize("name", [name for name in MAKE if name != "StopIteration"])
def test_raised_exceptions_are_those_of_the_loop(mapped, name):
    def f(one):
        raise chained(one)

    with pytest.raises(BaseException) as caught:  # noqa: PT011
        mapped(f, [name] * 3)
    assert seen(caught.value, chain=False) == seen(make(name), chain=False)
    assert seen(caught.value.__context__, chain=False) == seen(Doubled(7), chain=False)


def here(caller):
    if os.getpid() == caller:
        raise SystemExit(3)


class Bomb:
    """Ends the program that rebuilds it, if that is the caller."""

    def __init__(self, caller):
        self.caller = caller

    def __reduce__(self):
        return here, (self.caller,)


class Unsent:
    def __reduce__(self):
        raise SystemExit(4)


@pytest.mark.parametrize(("make", "code", "note"), [(Bomb, 3, "reading"), (lambda caller: Unsent(), 4, "sending")])
def test_a_result_that_ends_the_program_costs_its_own_call_alone(make, code, note):
    caller = os.getpid()

    def f(k):
        return make(caller) if k == 5 else Told(k, detail="")

    with Pool(2) as pool:
        futures = [pool.submit(f, k) for k in range(10)]
        errors = [future.exception() for future in futures]
        assert [error is None for error in errors] == [k != 5 for k in range(10)]
        assert errors[5].code == code
        for options in (ISOLATED, {"executor": pool, "isolate": True}):
            with pytest.raises(SystemExit) as caught:
                parallel_map(f, range(10), **options)
            assert caught.value.code == code
            assert caught.value.__notes__ == [f"while {note} the results of these elements", "in item 5: 5"]
        assert pool.submit(abs, -1).result() == 1


def test_items_before_a_result_that_cannot_be_rebuilt_are_yielded():
    caller, found = os.getpid(), []
    results = parallel_imap(lambda k: Bomb(caller) if k == 5 else Told(k, detail=""), range(10), **ISOLATED)
    with pytest.raises(SystemExit):
        found.extend(map(attrgetter("code"), results))
    assert found == list(range(5))


class Wrong(Exception):
    """Says how it is pickled, and is wrong."""

    def __init__(self, a, b):
        super().__init__(a, b)

    def __reduce__(self):
        return Wrong, (1,)


def test_exceptions_that_cannot_be_rebuilt_as_they_say():
    def fail(k):
        raise Wrong(1, 2)

    with pytest.raises(Wrong) as caught:
        parallel_map(fail, range(3), **ISOLATED)
    assert caught.value.args == (1, 2)
    with pytest.raises(TypeError, match="missing 1 required positional argument") as error:
        parallel_map(lambda k: Wrong(1, 2) if k == 2 else k, range(3), **ISOLATED)
    assert "in item 2: 2" in error.value.__notes__


def test_an_exception_that_cannot_be_sent_at_all():
    def fail(k):
        error = Told(k, detail="d")
        error.stream = (one for one in range(3))
        raise error

    with pytest.raises(RemoteError, match=r"Told: 0: d"):
        parallel_map(fail, range(3), **ISOLATED)
