"""Which functions provably only read their arguments, and get the caller's own memory."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import itertools
import math
import sys
import types
import warnings
import weakref

import hypothesis
import numpy as np
import numpy.fft  # which NumPy imports late
import pytest
from benchmarks.grid import read_one
from benchmarks.peers.work import burn, smooth
from hypothesis import strategies as st

import parwise
from parwise._core.inputs.arrays import InputArray
from parwise._core.inputs.reading import bytecode, instructions, known, proof
from parwise._core.inputs.reading.operations import binary, call_known, call_method
from parwise._core.inputs.reading.proof import element_value, only_reads
from parwise._core.inputs.reading.values import UnprovenError, Value, is_harmless, shared

from ..support import random_functions
from ..support.examples import examples

W = np.arange(4.0)
KEPT = []
K = 2


def proved(func, ndim=1, args=(), kwargs=None, dtype=float):
    return only_reads(func, [element_value(np.dtype(dtype), ndim)], args, kwargs or {})


def helper(x):
    return x[1:]


def running_sum(x):
    total = 0.0
    for i in range(1, len(x)):
        total += abs(x[i] - x[i - 1]) * 2
        if total > 1e9:
            break
    return total


def nested_loops(x):
    total = 0.0
    for _ in range(2):
        for j, v in enumerate(x):
            if v > 3:
                continue
            total += v * max(1, sum([w * 2 for w in x]), j)
        else:
            total -= 1
    while total > 1e3:
        total /= 2
    return total, np.array([total, *(1, 2)])


def quiet_log(x):
    with np.errstate(all="ignore"):
        return np.log(x).sum()


def root(x):
    try:
        y = math.sqrt(x[0])
    except ValueError:
        y = 0.0
    return y


def checked(x):
    if x[0] > 3:
        raise ValueError(f"too large: {x[0]}, in {x.ndim} dimensions")
    return x.sum()


def first_negative(x):
    i = 0
    while i < len(x) and x[i] > 0:
        i += 1
    return i


def filled(x):
    out = np.zeros_like(x)
    out[:2] = x[:2]
    out[-1] = x[0]
    out += 1
    return out


def with_closure():
    weights, power = np.ones(4), 2
    return lambda x: weights @ x**power


RECOGNISED = [
    (functools.partial(read_one, steps=3), 1),
    (functools.partial(functools.partial(burn), steps=3), 0),
    (smooth, 1),
    (lambda x: x[0], 1),
    (lambda x: x[0, 1], 2),
    (lambda x: x[:, 0].mean(), 2),
    (lambda x: x.mean(), 1),
    (lambda x: (x.mean(), x.std(ddof=1), x.max()), 2),
    (lambda x: np.sort(x)[3], 1),
    (lambda x: np.sort(x), 1),
    (lambda x: float(x[0]) + 1, 1),
    (lambda x: x @ x, 1),
    (lambda x: W @ x, 1),
    (lambda x: x[K] ** K, 1),
    (lambda x, k=2: x[k], 1),
    (lambda x: (x - x.mean()) / x.std(), 1),
    (lambda x: x[x > 0].mean(), 1),
    (lambda x: np.array([x.min(), x.max()]), 1),
    (lambda x: np.concatenate([x, x[::-1]]), 1),
    (lambda x: helper(x).sum(), 1),
    (lambda x: sum([v * v for v in x]), 1),
    (lambda x: [float(v) for v in x], 1),
    (lambda x: {"first": x[0]}["first"], 1),
    (lambda x: np.linalg.norm(x, axis=0, keepdims=True), 2),
    (lambda x: np.linalg.svd(x)[1], 2),
    (lambda x: np.fft.rfft(x), 1),
    (lambda x: np.clip(x, 0, 1), 1),
    (lambda x: x.astype(np.float32), 1),
    (lambda x: x.shape[0] * x.ndim, 2),
    (lambda x: None, 1),
    (running_sum, 1),
    (nested_loops, 1),
    (quiet_log, 1),
    (root, 1),
    (checked, 1),
    (first_negative, 1),
    (filled, 1),
    (with_closure(), 1),
    (np.sort, 1),
    (np.mean, 2),
    (np.sqrt, 1),
    (np.linalg.norm, 1),
    (np.fft.rfft, 1),
    (functools.partial(np.sum, axis=0), 2),
    (max, 1),
]


@pytest.mark.parametrize(("func", "ndim"), RECOGNISED)
def test_functions_that_only_read_are_recognised(func, ndim):
    assert proved(func, ndim)


def test_an_assertion_is_recognised():
    """In this file pytest would make something else of it."""
    assert proved(made("def f(x):\n    assert x.ndim == 1, 'no row'\n    return x[0]")["f"])


def test_a_value_and_other_arguments():
    assert proved(burn, args=(3,))
    assert proved(lambda x, w, k: x @ w * k, args=(W,), kwargs={"k": 2.5})
    assert not proved(lambda x, w: x + w, args=([1.0],))
    assert not proved(lambda x, w: w(x), args=(np.sum,))
    assert only_reads(lambda x, y: x[0] * y[0], [shared(1), shared(1)], (), {})


# Functions that write to their argument, keep it, return a view, or may do so.


def changed_global(x):
    global K
    K = x
    return 1


def raising(x):
    raise ValueError(x)


def keeping_exception(x):
    try:
        return math.sqrt(x[0])
    except ValueError as error:
        kept = error
        return kept is None


def generator(x):
    yield x[0]


def inner(x):
    def get():
        return x

    return get()[0]


def late(x):
    KEPT.append(lambda: x)


def varying(*given):
    return given[0][0]


def recursive(x):
    return x[0] if len(x) < 2 else recursive(x[1:])


def with_context(x):
    with contextlib.suppress(ValueError):
        return x[0]


def copied_then_argument(x):
    for _ in range(2):
        y = x.copy()
        for _ in range(2):
            y[0] = 1.0
            y = x
    return 1


def after_a_failed_call(x):
    try:
        return np.sum(x, axis=99)
    except ValueError:
        return second_or_axis(1, x)


def second_or_axis(first, second=2.0, axis=None):
    return second


def int_or_argument(x):
    y = 10**30
    if x.sum() > 99:
        y = x
    out = np.zeros_like(y)  # of objects
    out[()] = x[1:]
    return out


def new_or_argument(x):
    y = x * 2.0
    if x.sum() > 99:
        y = x
    y[0] = 1
    return 1


def none_or_tuple(x):
    y = None
    if x.sum() > 99:
        y = (x,)
    return y


def number_or_iterator(x):
    y = 1.5
    if x.sum() > 99:
        y = zip(x)
    return y


def object_in_place(x):
    y = x[0] > 1
    y += 10**30  # now an int of Python's
    out = np.zeros_like(y)  # of objects
    out[()] = x[1:]
    return out


def objects_then_view(x):
    out = np.array([10**30, 1])  # of objects
    out[0] = x[1:]
    return out


class Keeps:
    def __radd__(self, other):
        KEPT.append(other)
        return 1

    __add__ = __radd__

    def __bool__(self):
        return True


KEEPS = Keeps()
ufunc = np.frompyfunc(KEPT.append, 1, 1)
REFUSED = [
    *(changed_global, raising, keeping_exception, generator, inner, late, varying, recursive, with_context),
    *(after_a_failed_call, copied_then_argument, objects_then_view, object_in_place, int_or_argument, new_or_argument),
    *(none_or_tuple, number_or_iterator, ufunc, print, str, list, np.asarray, np.copyto, Keeps, KEPT.append),
    lambda x: x,
    lambda x: x[1:],
    lambda x: x.T,
    lambda x: (x, 1),
    lambda x: [x],
    lambda x: {"x": x},
    lambda x: iter(x),
    lambda x: x.flat,
    lambda x: x.base,
    lambda x: x.view(),
    lambda x: x.round(),
    lambda x: x.sort(),
    lambda x: x.fill(0),
    lambda x: x.setflags(write=False),
    lambda x: x.sum(out=x),
    lambda x: x.mean(0, None, x),
    lambda x: np.add(x, 1, out=x),
    lambda x: np.add(x, 1, x),
    lambda x: np.add.at(x, 0, 1),
    lambda x: np.histogram(x, x),
    lambda x: np.median(x, overwrite_input=True),
    lambda x: np.nan_to_num(x, False),
    lambda x: np.array(x, copy=None),
    lambda x: np.round(x),
    lambda x: np.squeeze(x),
    lambda x: np.fft.fftn(x),
    lambda x: x.astype(float, copy=False),
    lambda x: x.astype(object),
    lambda x: x + KEEPS,
    lambda x: KEEPS + x,
    lambda x: x[KEEPS],
    lambda x: 1 if KEEPS else 2,
    lambda x: KEPT.append(x),
    lambda x: ufunc(x),
    lambda x: f"{x}",
    lambda x: "%s" % x,  # noqa: UP031
    lambda x: print(x),
    lambda x: locals(),
    lambda x: globals(),
    lambda x: (lambda: x)(),
    lambda x: sum(v for v in x),
    lambda x: [v for v in x],  # noqa: C416 - of rows, which are views
    lambda x: getattr(x, "T"),  # noqa: B009
    lambda x: x.__setitem__(0, 1),
    lambda x, kept=[]: kept.append(x),
    lambda x: W,
    lambda x: W.__setitem__(0, x[0]),
    lambda x: isinstance(x, Keeps),
]


@pytest.mark.parametrize("func", REFUSED)
def test_functions_that_may_do_more_are_refused(func):
    assert not proved(func, 2)


@pytest.mark.parametrize(
    "text",
    [
        "x[0] = 1",
        "x += 1",
        "x[:] = 0",
        "x[0] += 1",
        "x.shape = -1",
        "KEPT[0] = x",
        "box.x = x",
        "del x[0]",
        "import os",
        "a, *b = x",
        "a = x if x is None else KEPT; a.append(1)",
        "match x:\n        case [v, *_]: pass",
    ],
)
def test_statements_that_may_do_more_are_refused(text):
    space = {"KEPT": KEPT, "box": types.SimpleNamespace()}
    exec(f"def f(x):\n    {text}\n    return 1.5", space)
    assert not proved(space["f"])


def test_only_numbers_in_plain_arrays():
    assert element_value(np.dtype(object), 1) is None
    assert element_value(np.dtype([("a", float)]), 1) is None
    assert element_value(np.dtype("U3"), 1) is None
    for array in (np.ones((2, 3)).view(np.matrix), np.ones((2, 3), object), np.zeros(3, [("a", float)])):
        assert InputArray(array, (0,), False).element is None
    assert InputArray(np.ones((2, 3)), (0,), False).element == shared(1)
    assert not proved(lambda x: x + OBJECTS)


OBJECTS = np.array([KEEPS])


@examples(400)
@hypothesis.given(
    random=st.randoms(use_true_random=False),
    shape=st.sampled_from([(3,), (4,), (1,), (2, 3), (3, 3), (1, 1), (2, 2, 2)]),
    dtype=st.sampled_from([float, np.float32, int, bool, complex]),
    captured=st.sampled_from([2.0, None, "t", np.arange(3.0), random_functions.Box()]),
)
def test_what_is_proved_of_random_functions(random, shape, dtype, captured):
    """Such a function leaves each byte as it is, and neither it nor its result refers to the memory afterwards."""
    text, space = random_functions.source(random), random_functions.namespace()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(text, space)
        except SyntaxError:
            return
        func = space["make"](captured)
        if not proved(func, len(shape), dtype=dtype):
            return
        array = (np.arange(2 * math.prod(shape)).reshape(2, *shape) + 1).astype(dtype)
        element = array[0]
        before = array.tobytes(), sys.getrefcount(array), sys.getrefcount(element)
        result = None
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            result = func(element)
    hypothesis.event("proved")
    after = array.tobytes(), sys.getrefcount(array), sys.getrefcount(element)
    assert after == before, (text, result)


def random_functions_proved(count):
    import random

    total = 0
    for seed in range(count):
        text, space = random_functions.source(random.Random(seed)), random_functions.namespace()
        with warnings.catch_warnings(), contextlib.suppress(SyntaxError):
            warnings.simplefilter("ignore")
            exec(text, space)
            total += proved(space["make"](2.0))
    return total


def test_many_random_functions_are_proved():
    """Else the test above would tell nothing."""
    assert 20 < random_functions_proved(300) < 200


def contents(result):
    """Arrays in a result."""
    if isinstance(result, np.ndarray):
        return [result]
    return [array for one in result for array in contents(one)] if isinstance(result, tuple | list) else []


def elements():
    """Views of arrays, of many kinds, with the array of each."""
    for shape, dtype in itertools.product(
        [(3,), (1,), (0,), (3, 3), (1, 1), (2, 3), ()], [float, np.float32, int, np.uint8, bool, complex]
    ):
        array = (np.arange(2 * math.prod(shape)).reshape(2, *shape) % 7 + 1).astype(dtype)
        if len(shape) == 2 and shape[0] == shape[1]:
            array += np.eye(shape[0]).astype(dtype)
        yield array, array[0, ...]


OTHERS = [0, 1, -1, None, 0.5, (0,), (), "same", [1, 2]]
NAMED = {"axis": [0, -1, None, ()], "keepdims": [True], "ddof": [1], "dtype": [float, np.float32]}


def check_leaves_argument(call, rule, least, most):
    """Call a function in many ways, with an array first, and check the promises of its rule."""
    succeeded = 0
    for array, element in elements():
        ways = [
            rest for n in range(least, min(most, 3) + 1) for rest in itertools.product([*OTHERS, element], repeat=n)
        ]
        named = [{}] + [{name: value} for name in sorted(rule.keywords) for value in NAMED.get(name, [])]
        for rest, words in itertools.product(ways, named):
            before = array.tobytes(), sys.getrefcount(array), element.shape, element.strides
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = call(element, *rest, **words)
                succeeded += 1
                if rule.result != "view":
                    assert not any(np.may_share_memory(one, array) for one in contents(result)), (rule, rest, words)
                if rule.result in ("typed", "astype", "like") and not (rule.name == "array" and rest):
                    assert not any(one.dtype.hasobject for one in contents(result)), (rule, rest, words)
                del result
            assert (array.tobytes(), sys.getrefcount(array), element.shape, element.strides) == before, (rule, rest)
    return succeeded


NUMPYS = {
    f"{getattr(one, '__module__', 'numpy')}.{rule.name}": (one, rule)
    for one, rule in known._table(True).items()
    if rule.result in ("array", "typed", "like", "view", "number", "int", "plain", "arrays")
    and getattr(one, "__module__", "numpy") != "time"
}


TAKE_NO_SUCH_ARRAY = {"atanh", "fftfreq", "rfftfreq", "isnat"}


@pytest.mark.parametrize("name", sorted(NUMPYS))
def test_known_functions_do_what_their_rules_say(name):
    func, rule = NUMPYS[name]
    assert check_leaves_argument(func, rule, max(0, rule.least - 1), rule.most - 1) or rule.name in TAKE_NO_SUCH_ARRAY


@pytest.mark.parametrize("name", sorted(known.METHODS))
def test_known_methods_do_what_their_rules_say(name):
    rule = known.METHODS[name]

    def call(element, *given, **named):
        if rule.result == "astype":
            given = (np.float64,)
        return getattr(element, name)(*given, **named)

    assert check_leaves_argument(call, rule, rule.least if rule.result != "astype" else 0, min(rule.most, 2))


def test_more_positional_arguments_than_known_are_refused():
    for rule in known._table(True).values():
        if rule.result not in ("exception", "type"):
            with pytest.raises(Exception, match=r"arguments|isinstance|of"):
                call_known(rule, [shared(1)] * 10, {})
            with pytest.raises(Exception, match=r"arguments|isinstance|of"):
                call_known(rule, [shared(1)] * max(1, rule.least), {"out": shared(1)})
    for name in known.METHODS:
        with pytest.raises(Exception, match="arguments"):
            call_method(shared(1), name, [shared(1)] * 10, {})


# What a proof rests on.


def made(text, **names):
    space = {"np": np, **names}
    exec(text, space)
    return space


def test_a_name_that_is_bound_to_something_else():
    space = made("def g(x):\n    return x[0]\ndef f(x):\n    return g(x)\n", KEPT=[])
    assert proved(space["f"])
    exec("def g(x):\n    KEPT.append(x)\n    return 1", space)
    assert not proved(space["f"])
    exec("def g(x):\n    return 2", space)
    assert proved(space["f"])


def test_a_builtin_that_is_hidden_by_a_global():
    space = made("def f(x):\n    return float(x[0])\n")
    assert proved(space["f"])
    space["float"] = KEPT.append
    assert not proved(space["f"])


def test_code_defaults_and_captured_variables_that_change():
    def make():
        captured = 2

        def f(x, y=1.0):
            return x[0] * y * captured

        def put(value):
            nonlocal captured
            captured = value

        return f, put

    f, put = make()
    assert proved(f)
    f.__defaults__ = (KEEPS,)
    assert not proved(f)
    f.__defaults__ = (2.0,)
    assert proved(f)
    put(KEEPS)
    assert not proved(f)
    put(3)
    assert proved(f)
    f.__code__ = (lambda captured: lambda x, y=1.0: x.fill(captured))(1).__code__
    assert not proved(f)


def test_functions_of_numpy_that_are_replaced(monkeypatch):
    func = made("def f(x):\n    return np.mean(x)\n")["f"]
    assert proved(func)
    monkeypatch.setattr(np, "mean", lambda x: KEPT.append(x))
    assert not proved(func)
    monkeypatch.setattr(np, "mean", np.frompyfunc(KEPT.append, 1, 1))
    assert not proved(func)
    monkeypatch.undo()
    assert proved(func)


def test_numpys_functions_are_known_only_if_they_are_its_own(monkeypatch):
    known._table.cache_clear()
    original = np.mean
    replaced = functools.wraps(np.mean)(lambda x: KEPT.append(x))
    monkeypatch.setattr(np, "mean", replaced)
    monkeypatch.setattr(np, "add", np.frompyfunc(KEPT.append, 1, 1))
    try:
        assert known.known(replaced) is None
        assert known.known(np.add) is None
    finally:
        known._table.cache_clear()
        monkeypatch.undo()
    assert known.known(original) is not None


def test_a_module_that_makes_what_is_missing():
    module = types.ModuleType("module")
    module.__getattr__ = lambda name: KEEPS
    text = "def f(x):\n    y = x\n    for _ in range(2):\n        z = y + x\n        y = module.y\n    return z"
    func = made(text, module=module)["f"]
    assert isinstance(func(np.ones(3)), int)
    assert not proved(func)
    module.y = 2.0
    assert proved(func)


def test_globals_that_are_no_plain_dict():
    class Names(dict):
        def __getitem__(self, name):
            return KEEPS if name == "y" else super().__getitem__(name)

    space = Names(y=1.0)
    exec("def f(x):\n    return x[0] + y", space)
    assert not proved(space["f"])


def test_proofs_keep_nothing_alive():
    big = np.ones(1000)
    space = made("def g(x):\n    return x[0]\ndef f(x, w=big):\n    return g(x) @ big * w[0]\n", big=big)
    func = space["f"]
    proved(func)
    alive = [weakref.ref(func), weakref.ref(space["g"]), weakref.ref(big)]
    del func, space, big
    gc.collect()
    assert [one() for one in alive] == [None, None, None]


def test_many_kinds_of_arguments_are_not_kept():
    for ndim in range(1, 40):
        assert proved(len, ndim)
        assert proved(smooth, ndim)
    assert len(proof._proofs[smooth]) <= proof._MOST_PROOFS


@pytest.mark.parametrize("watch", [sys.settrace, sys.setprofile])
def test_debuggers_and_profilers_see_copies(watch):
    before = sys.gettrace(), sys.getprofile()
    try:
        watch(lambda *event: None)
        result = proved(smooth)
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    assert not result


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring of Python 3.12")
def test_monitoring_tools_see_copies():
    sys.monitoring.use_tool_id(3, "test")
    try:
        assert not proved(smooth)
    finally:
        sys.monitoring.free_tool_id(3)
    assert proved(smooth)


# Interpreters whose instructions are not known.


@pytest.fixture
def forgotten():
    proof._proofs.clear()
    yield
    proof._proofs.clear()


def test_an_instruction_that_is_not_known(monkeypatch, forgotten):
    monkeypatch.delattr(instructions.Instructions, "_do_binary_op")
    assert not proved(smooth)


def test_an_instruction_with_another_effect(monkeypatch, forgotten):
    monkeypatch.setattr(instructions.Instructions, "_do_binary_op", lambda self, one: None)
    assert not proved(smooth)


def test_an_operator_that_is_not_known():
    """From Python 3.14 on indexing is one."""
    for operator in ("[]", "NB_SUBSCR", "", "==", "="):
        with pytest.raises(UnprovenError):
            binary(operator, shared(1), Value("int"))


def test_another_version(monkeypatch, forgotten):
    monkeypatch.setattr(bytecode, "VERSIONS", ())
    assert not proved(smooth)


def test_a_long_function_is_given_up(forgotten):
    space = made("def f(x):\n" + "    y = x[0] + 1\n" * 2000 + "    return y\n")
    assert not proved(space["f"])


def test_opaque_values_are_not_harmless():
    assert not any(map(is_harmless, [Value("opaque"), shared(1), shared(None), Value("iterator"), Value("method")]))


# In calls.


@pytest.fixture
def no_copies(monkeypatch):
    """Fail if the caller makes private copies."""

    def private(self, *given):
        raise AssertionError("a private copy")

    monkeypatch.setattr(InputArray, "private", private)


def rows(count=40, length=15_000, dtype=float):
    return np.random.default_rng(0).integers(0, 99, (count, length)).astype(dtype)


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"executor": "threads"}])
def test_views_are_given_to_functions_that_only_read(no_copies, options):
    array = rows()
    for func in (smooth, np.sort, lambda x: x[3]):
        expected = np.array([func(x) for x in array])
        result = parwise.parallel_apply(func, array, **options)
        assert result.tobytes() == expected.tobytes()
        assert not np.may_share_memory(result, array)


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 1), (1, 2)])
@pytest.mark.parametrize("order", "CF")
def test_axes_and_orders(axis, order):
    array = np.asarray(rows(60, 10_000).reshape(60, 100, 100), order=order)
    expected = parwise.parallel_apply(lambda x: KEPT.clear() or x.sum(), array, axis=axis, workers=1)
    assert parwise.parallel_apply(lambda x: x.sum(), array, axis=axis, workers=1).tobytes() == expected.tobytes()


def test_the_function_gets_what_the_loop_passes(no_copies, monkeypatch):
    """Views of the user's array, with its address, strides and flags."""
    array = np.asfortranarray(rows(80))[::2, ::-1]
    seen = []
    monkeypatch.setattr(parwise._core.inputs.reading.proof, "only_reads", lambda *given: True)

    def look(x):
        seen.append((x.__array_interface__["data"], x.strides, x.flags.num, x.base is array.base, type(x)))
        return 1

    parwise.parallel_apply(look, array, workers=1)
    assert seen == [
        (x.__array_interface__["data"], x.strides, x.flags.num, x.base is array.base, type(x)) for x in array
    ]


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"executor": "threads"}])
def test_functions_that_write_or_keep_get_copies(options):
    array = rows()
    before, kept = array.copy(), []

    def write(x):
        x[0] = -1
        return x.sum()

    def keep(x):
        kept.append(x)
        return x

    for func in (write, keep, lambda x: x, lambda x: x[1:]):
        expected = np.array([func(x.copy()) for x in array])
        kept.clear()
        result = parwise.parallel_apply(func, array, **options)
        assert result.tobytes() == expected.tobytes()
        assert array.tobytes() == before.tobytes()
        assert not any(np.may_share_memory(one, array) for one in [result, *kept])


def test_read_only_arrays():
    array = rows()
    array.flags.writeable = False
    assert parwise.parallel_apply(np.sort, array, workers=1).tobytes() == np.sort(array, axis=1).tobytes()
    with pytest.raises(ValueError, match="read-only"):
        parwise.parallel_apply(lambda x: x.fill(0), array, workers=1)


def test_memmaps_get_copies_of_their_type(tmp_path):
    array = np.memmap(tmp_path / "a.bin", float, "w+", shape=(40, 15_000))
    array[:] = rows()
    result = parwise.parallel_apply(lambda x: isinstance(x, np.memmap), array, workers=1)
    assert result.all()


def test_several_arrays_and_numbers(no_copies):
    array, numbers = rows(), np.arange(40.0)
    result = parwise.parallel_apply(lambda x, n: x[2] * n, array, numbers, workers=1)
    assert result.tobytes() == np.array([x[2] * n for x, n in zip(array, numbers, strict=True)]).tobytes()


@pytest.mark.parametrize("depth", [0, 2])
def test_blocks(no_copies, depth):
    array = rows()
    options = {"depth": depth} if depth else {}
    result = parwise.parallel_apply(lambda x: x * 2, array, vectorized=True, chunk=7, workers=1, **options)
    assert result.tobytes() == (array * 2).tobytes()


def test_out_that_is_the_input():
    array = rows()
    expected = np.array([smooth(x) for x in array])
    parwise.parallel_apply(smooth, array, workers=1, out=array)
    assert array.tobytes() == expected.tobytes()


def test_out_that_overlaps_the_input():
    memory = rows(41)
    array, out = memory[:-1], memory[1:]
    expected = np.array([smooth(x) for x in array])
    parwise.parallel_apply(smooth, array, workers=1, out=out)
    assert out.tobytes() == expected.tobytes()


def test_an_exception_leaves_the_array_as_it_is():
    array = rows() + 1
    before = array.copy()
    with pytest.raises(ValueError, match="too large"):
        parwise.parallel_apply(checked, array * 10, workers=1)
    assert array.tobytes() == before.tobytes()


def test_with_in_python_3_14():
    """It asks what a ``with`` is for twice, by an instruction of its own; only NumPy's error handling is known."""
    load = types.SimpleNamespace(opname="LOAD_SPECIAL", arg=1)
    machine = instructions.Instructions(None, proved, proved.__code__, (Value("errstate"),), {})
    machine.execute(load)
    assert [one.kind for one in machine.stack] == ["context end", "null"]
    with pytest.raises(UnprovenError):
        instructions.Instructions(None, proved, proved.__code__, (Value("opaque"),), {}).execute(load)
