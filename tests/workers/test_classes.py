"""Classes and functions of a script: a worker gets each once per call, results are of the caller's own."""

from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest

from parwise import Pool, parallel_apply, parallel_imap, parallel_map

from ..support.functions import ISOLATED
from ..support.oracle import assert_same
from ..support.script_ways import check, check_each


def test_results_are_of_the_callers_class():
    check_each(
        """
class Fit:
    kept = 0
    names = []
    def __init__(self, k): self.k = k
class Slots:
    __slots__ = ("x", "__own")
    def __init__(self, x): self.x = self.__own = x
    def own(self): return self.__own
@dataclasses.dataclass(slots=True)
class Data:
    x: int
    y: list = dataclasses.field(default_factory=list)
class Point(typing.NamedTuple):
    x: int
class Color(enum.Enum):
    RED = (1, "r")
    GREEN = (2, "g")
    def __init__(self, number, letter): self.letter = letter
class Outer:
    class Inner:
        pass
def local():
    class Local:
        def __init__(self): self.k = 5
    return Local
Local = local()
def f(k):
    time.sleep(0.001)
    return Fit(k), Slots(k), Data(k), Point(k), Color.GREEN, Outer.Inner(), Local(), Fit, {"in": [Slots(k)]}
for results in [mapped(f, range(20)) for _ in range(2)]:
    for k, (fit, slots, data, point, color, inner, a, cls, held) in enumerate(results):
        Fit.kept += 1
        Fit.names.append(k)
        types = [Fit, Slots, Data, Point, Outer.Inner, Local]
        assert [type(one) for one in (fit, slots, data, point, inner, a)] == types
        assert (fit.k, slots.own(), data, point) == (k, k, Data(k), Point(k))
        assert color is Color.GREEN and color.letter == "g" and cls is Fit
        assert type(held["in"][0]) is Slots
assert Fit.kept == 40 and len(Fit.names) == 40
        """,
    )


def test_a_class_is_seen_as_it_is_when_a_call_begins():
    check_each(
        """
class Fit:
    factor = 2
    def value(self): return self.factor * scale
scale = 10
fits = [Fit(), Fit()]
def f(fit): return fit, fit.value(), Fit.factor
def factors(): return [values[1:] for values in mapped(f, fits)]
assert factors() == [(20, 2)] * 2
Fit.factor = 3
scale = 100
assert factors() == [(300, 3)] * 2
old = Fit
class Fit:
    factor = 5
    def value(self): return -self.factor
fits.append(Fit())
results = mapped(f, fits)
assert [type(one) for one, *_ in results] == [old, old, Fit]
assert [values for _, *values in results] == [[300, 5], [300, 5], [-5, 5]]
        """,
    )


def test_what_a_function_sets_on_a_class_lasts_for_the_call():
    check_each(
        """
class Model:
    weights = None
    @classmethod
    def get(cls):
        if cls.weights is None:
            cls.weights = object()
            time.sleep(0.01)
            return 1
        return 0
class Item:
    loads = 0
    def load(self):
        global loaded
        Item.loads += 1
        loaded = getattr(sys.modules[__name__], "loaded", 0) + 1
        return Item.loads == 1
def f(item): return Model.get(), item.load(), os.getpid()
options = {"verify": False}
results = mapped(f, [Item() for _ in range(60)])
processes = {pid for *_, pid in results} - {here}
for place in (0, 1):
    assert sum(one[place] for one in results if one[2] != here) == len(processes), results
        """,
        ["isolated", "imap", "pool", "map", "forked"],
    )


@pytest.mark.parametrize("where", ["item", "function", "lambda"])
def test_a_class_and_its_globals_are_pickled_once(where):
    items = {
        "item": "[Big(k) for k in range(40)]",
        "function": "range(40)",
        "lambda": "[lambda: table.array[7] for k in range(40)]",
    }
    check_each(
        f"""
import tempfile
folder = tempfile.TemporaryDirectory()
seen = os.path.join(folder.name, "seen")
# Items are computed here until workers are up, which may take longer than all of them.
here_too = way in ("imap", "pool", "map")
class Table:
    def __init__(self): self.array, self.pickled = np.arange(10_000.0), 0
    def __getstate__(self):
        Table.count.append(1)
        return {{"array": self.array}}
    count = []
table = Table()
class Big:
    def __init__(self, k): self.k = k
    def __call__(self): return table.array[7]
def f(item):
    if os.getpid() == here:
        time.sleep(0.001)
        while here_too and not os.path.exists(seen):
            time.sleep(0.001)
    else:
        open(seen, "w").close()
    return Big(item)() if isinstance(item, int) else item()
assert mapped(f, {items[where]}) == [7.0] * 40
folder.cleanup()
assert len(Table.count) == 1, Table.count
        """,
        ["isolated", "imap", "pool", "map", "forked"],
    )


def test_classes_with_code_of_their_own_are_rebuilt_without_running_it():
    check_each(
        """
made = []
class Meta(type):
    def __new__(mcls, name, bases, names, *, tag):
        made.append(names["needed"])
        return super().__new__(mcls, name, bases, names)
    def __init__(cls, name, bases, names, *, tag): cls.tag = tag
    def __setattr__(cls, name, value):
        if hasattr(cls, "tag"): raise AttributeError("frozen")
        super().__setattr__(name, value)
class Made(metaclass=Meta, tag=3):
    needed = 1
class Base:
    def __init_subclass__(cls, *, key):
        super().__init_subclass__()
        made.append(key)
class Sub(Base, key="k"):
    pass
class Named:
    def __set_name__(self, owner, name): made.append(name)
class Holder:
    attribute = Named()
class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...
    @property
    @abc.abstractmethod
    def name(self): ...
class Square(Shape):
    name = "square"
    def area(self): return super().__class__.__name__
@Shape.register
class Round: pass
T = typing.TypeVar("T")
class Box(typing.Generic[T]):
    pass
class Flags(enum.Flag):
    A = 1
    B = 2
    AB = 3
before = list(made)
def f(k):
    try:
        Shape()
    except TypeError:
        abstract = True
    return (Made(), Sub(), Holder(), Square(), Box[int](), Flags.A | Flags.B), Made.tag, abstract, Square().area(), \\
        isinstance(Round(), Shape), list(made), Flags.AB is Flags.A | Flags.B, Box[T].__parameters__ == (T,)
for objects, *rest in mapped(f, range(6)):
    assert [type(one) for one in objects] == [Made, Sub, Holder, Square, Box, Flags]
    assert rest == [3, True, "super", True, before, True, True], rest
assert made == before == [1, "k", "attribute"]
        """,
    )


def test_classes_that_a_function_makes_come_back_by_value():
    check_each(
        """
class Base:
    __slots__ = ()
    def __init_subclass__(cls, *, key): cls.key = key
seen = 0
@functools.cache
def local():
    class Local(Base, key=3):
        __slots__ = ("x",)
        def value(self): return self.x + offset
    class Wrong(Exception):
        def __init__(self, *, code): self.code = code
    return Local, Wrong
offset = 4
def f(k):
    one, wrong = local()
    made = one()
    made.x = k
    return made, wrong(code=k)
results = mapped(f, range(12))
offset = 5
assert [one.value() for one, _ in results] == [k + 5 for k in range(12)]
assert all(isinstance(one, Base) and one.key == 3 and not hasattr(one, "__dict__") for one, _ in results)
assert [wrong.code for _, wrong in results] == list(range(12))
        """,
    )


def test_decorated_functions_travel_with_what_they_wrap():
    check_each(
        """
@functools.lru_cache(maxsize=7)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
@functools.cache
def loaded(name): return object()
@functools.singledispatch
def shown(x): return "any"
@shown.register
def _(x: int): return "int"
def decorate(func):
    calls = [0]
    @functools.wraps(func)
    def inner(*args):
        calls[0] += 1
        return func(*args), calls[0]
    return inner
@decorate
def plus(x): return x + 1
def counter():
    count = 0
    def add():
        nonlocal count
        count += 1
    def get(): return count
    return add, get
add, get = counter()
class Holder:
    @functools.cached_property
    def once(self): return [1]
    @functools.singledispatchmethod
    def show(self, x): return "any"
    @show.register
    def _(self, x: int): return "int"
    half = functools.partialmethod(lambda self, a, b: (a, b), 1)
    @functools.lru_cache
    def kept(self): return id(self)
Id = typing.NewType("Id", int)
P = typing.ParamSpec("P")
def f(k):
    one, before = Holder(), get()
    add()
    return fib(20), fib.cache_parameters(), loaded("x") is loaded("x"), shown(1), shown("a"), plus.__wrapped__(k), \\
        plus(1)[0], get() - before, one.once is one.once, one.show(1), one.half(2), one.kept() == id(one), Id(k), \\
        (fib, loaded, plus, Id, P, Holder.kept)
for k, result in enumerate(mapped(f, range(8))):
    want = 6765, {"maxsize": 7, "typed": False}, True, "int", "any", k + 1, 2, 1, True, "int", (1, 2), True, k
    assert result[:-1] == want, result
    for mine, theirs in zip(result[-1], (fib, loaded, plus, Id, P, Holder.kept)):
        assert mine is theirs, theirs
        """,
    )


def test_an_initializer_sets_attributes_of_classes():
    check("""
class Model:
    weights = None
    factor = 1
def load(): Model.weights, Model.late = "loaded", 1
def f(k): return Model.weights, Model.late, Model.factor
class Other:
    @staticmethod
    def f(k): return f(k), pickle.loads(pickle.dumps(Model)) is Model
with Pool(2, initializer=load) as ready:
    for factor in (1, 2):
        Model.factor = factor
        want = [("loaded", 1, factor)] * 6
        assert list(ready.map(f, range(6))) == want
        assert [ready.submit(f, k).result() for k in range(6)] == want
        assert parallel_map(f, range(6), executor=ready) == want
        assert parallel_map(Other.f, range(6), executor=ready) == [(one, True) for one in want]
assert Model.weights is None
    """)


def test_a_class_is_released_with_the_call():
    def make():
        class Local:
            pass

        return Local

    cls = make()
    items = [cls() for _ in range(5)]
    with Pool(2) as pool:
        for results in (
            parallel_map(lambda one: one, items, **ISOLATED),
            list(parallel_imap(lambda one: one, items, **ISOLATED)),
            list(pool.map(lambda one: one, items)),
            [pool.submit(lambda one: one, one).result() for one in items],
        ):
            assert {type(one) for one in results} == {cls}
        del results
    gone = weakref.ref(cls)
    del cls, items
    gc.collect()
    assert gone() is None


def test_a_class_that_cannot_be_sent_is_refused_and_the_next_call_is_right():
    class Held:
        stream = (k for k in range(3))

    with pytest.raises(TypeError, match="generator"):
        parallel_map(lambda one: one, [Held()], **ISOLATED)
    del Held.stream
    assert type(parallel_map(lambda one: one, [Held()], **ISOLATED)[0]) is Held


def test_warnings_and_log_records_are_of_the_callers_classes():
    check("""
import logging, warnings
class Odd(UserWarning):
    count = 0
class Extra:
    pass
records = []
class Handler(logging.Handler):
    def emit(self, record): records.append(record)
logging.getLogger("here").addHandler(Handler())
def f(k):
    warnings.warn(Odd("odd"))
    logging.getLogger("here").warning("told", extra={"extra": Extra()})
    return k
Odd.count = 7
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", Odd)
    mapped(f, range(3))
assert [one.category for one in caught] == [Odd] * 3 and Odd.count == 7
assert [type(one.extra) for one in records] == [Extra] * 3
    """)


def test_a_generic_class_and_an_alias_of_new_syntax():
    if sys.version_info < (3, 12):
        pytest.skip("the syntax is that of Python 3.12")
    check("""
type Number = int | float
class Box[T]:
    def __init__(self, value: T): self.value = value
class Sub[S, *Ts, **P](Box[S]): pass
def same[X](x: X) -> X: return x
def f(one): return one, type(one).__type_params__, Number, same.__type_params__
items = [Box[int](1), Sub(2)]
for one, (got, parameters, number, others) in zip(items, mapped(f, items)):
    assert type(got) is type(one) and parameters == type(one).__type_params__ and number is Number
    assert others == same.__type_params__
    """)


def test_ufuncs_of_python_functions_travel():
    def larger(x, y):
        return x if x > y else y

    a = np.arange(12.0).reshape(4, 3)
    ufunc, reduced = np.frompyfunc(larger, 2, 1), np.frompyfunc(larger, 2, 1, identity=-1)
    vectorized = np.vectorize(larger, otypes=[float])
    expected = np.stack([vectorized(row, 5.0) for row in a])  # from now on it holds a ufunc
    assert_same(parallel_apply(vectorized, a, args=(5.0,), **ISOLATED), expected)
    assert_same(parallel_apply(lambda row: ufunc(row, 5.0).astype(float), a, **ISOLATED), expected)
    assert parallel_map(lambda n: reduced.reduce(np.zeros(n, object)), [0, 2], **ISOLATED) == [-1, 0]
    assert parallel_map(lambda f: f(3, 4), [np.add, ufunc], **ISOLATED) == [7, 4]
