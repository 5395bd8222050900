"""`parallel_map` over lists and iterators of items of any kind, compared with the plain loop."""

from __future__ import annotations

import itertools
import operator
import os
import pickle
import threading

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from parwise import (
    GapWarning,
    NotReproducibleError,
    WorkerDiedError,
    options,
    parallel,
    parallel_apply,
    parallel_map,
    vectorize,
)

from ..support.examples import examples
from ..support.functions import FUNCTIONS, slowly
from ..support.internals import Job, default_pool
from ..support.oracle import assert_same, assert_same_items


@pytest.mark.parametrize("name", FUNCTIONS)
def test_list_of_anything(name, runner):
    func, items = FUNCTIONS[name]
    want = [func(item) for item in items]
    assert_same_items(parallel_map(func, items, **runner), want)
    assert_same_items(parallel_map(func, iter(items), **runner), want)
    assert_same_items(parallel_map(func, tuple(items), **runner), want)


def test_several_iterables(runner):
    want = [operator.sub(*pair) for pair in zip(range(100), range(100, 0, -1), strict=True)]
    assert parallel_map(operator.sub, range(100), range(100, 0, -1), **runner) == want
    assert parallel_map(operator.sub, iter(range(100)), list(range(100, 0, -1)), **runner) == want
    got = parallel_map(lambda x, k, *, sign: sign * (x + k), range(9), args=(5,), kwargs={"sign": -1}, **runner)
    assert got == [-(x + 5) for x in range(9)]


@examples(100)
@given(
    items=st.lists(
        st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.none(), st.binary()), max_size=30
    ),
    lazily=st.booleans(),
    drop=st.booleans(),
    way=st.sampled_from([{"workers": 1}, {"workers": 2, "isolate": True}, {"executor": "threads", "workers": 2}]),
)
def test_items_come_back_as_they_are(items, lazily, drop, way):
    got = parallel_map(lambda item: item, iter(items) if lazily else items, drop_none=drop, **way)
    assert_same_items(got, [item for item in items if item is not None or not drop])


@pytest.mark.parametrize("way", [{"workers": 1}, {"workers": 2, "isolate": True}, {"executor": "threads"}, {}])
def test_iterators_are_consumed_lazily(way, monkeypatch):
    """Few items are read before their results are needed."""
    accept = Job.accept
    done, ahead = [0], []

    def count(self, task, outcome, *who):
        done[0] += len(task)
        accept(self, task, outcome, *who)

    def items():
        for k in range(60):
            ahead.append(k - done[0])
            yield float(k)

    monkeypatch.setattr(Job, "accept", count)
    assert parallel_map(slowly, items(), **way) == [float(k) for k in range(60)]
    assert max(ahead) < 30
    assert parallel_map(lambda x: x, itertools.islice(itertools.count(), 50), **way) == list(range(50))


def test_generator_stays_in_its_thread():
    threads = set()

    def items():
        for k in range(200):
            threads.add(threading.get_ident())
            yield float(k)

    for way in ({"workers": 2}, {"workers": 2, "isolate": True}):
        parallel_map(slowly, itertools.islice(items(), 12), **way)
        parallel_map(lambda x: x, items(), **way)
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("way", [{"workers": 1}, {"workers": 2, "isolate": True}, {"executor": "threads"}, {}])
def test_errors_come_in_order(way):
    def broken():
        yield from range(30)
        raise LookupError("the iterator")

    with pytest.raises(LookupError, match="the iterator"):
        parallel_map(lambda x: x, broken(), **way)
    with pytest.raises(ZeroDivisionError) as caught:
        parallel_map(lambda x: 1 // (x - 7), broken(), **way)
    assert caught.value.__notes__ == ["in item 7: 7"]
    with pytest.raises(ValueError, match="shorter"):
        parallel_map(operator.add, iter(range(40)), iter(range(30)), **way)
    with pytest.raises(StopIteration):
        parallel_map(lambda x: next(iter([])), range(5), **way)
    assert parallel_map(lambda x: x, range(5), **way) == list(range(5))


def test_gaps_are_none():
    def f(x):
        if x % 4 == 3:
            raise ValueError("no")
        if x == 9:
            os._exit(1)
        return str(x)

    with pytest.warns(RuntimeWarning, match="no result for 4 of 13"):
        got = parallel_map(f, range(13), errors="ignore", workers=2, isolate=True)
    assert got == [None if x % 4 == 3 or x == 9 else str(x) for x in range(13)]


def test_worker_that_dies_is_told_by_its_item():
    with pytest.raises(WorkerDiedError, match="in item 5") as caught:
        parallel_map(lambda x: os._exit(3) if x == 5 else x, iter(range(20)), workers=2, isolate=True)
    assert (caught.value.index, caught.value.exitcode) == (5, 3)
    marker = f"/proc/self/fd/{os.memfd_create('once')}"

    def once(x, path):
        if x == 5 and not os.path.getsize(path):
            with open(path, "w") as file:
                file.write("x")
            os._exit(3)
        return x

    path = marker.replace("self", str(os.getpid()))
    assert parallel_map(once, iter(range(20)), args=(path,), workers=2, isolate=True, retries=1) == list(range(20))
    os.close(int(marker.rpartition("/")[2]))


def test_large_items_pass_through_small_slots():
    items = [np.full(700_000, k, float) for k in range(5)]
    got = parallel_map(lambda x: x * 2.0, items, workers=2, isolate=True)
    assert_same_items(got, [x * 2.0 for x in items])
    assert default_pool().slot_bytes <= 2**20


def test_random_numbers():
    want = [np.random.default_rng(seed).random() + k for k, seed in enumerate(np.random.SeedSequence(3).spawn(40))]
    for way in ({"workers": 1}, {"workers": 2, "isolate": True}, {"executor": "threads"}):
        assert_same_items(
            [float(x) for x in parallel_map(lambda x, rng: x + rng.random(), iter(range(40)), rng=3, **way)], want
        )


@pytest.mark.parametrize("verify", [True, "full"])
def test_verify(verify, eager):
    assert parallel_map(str, iter(range(60)), workers=2, verify=verify) == [str(k) for k in range(60)]
    count = iter(range(10**6))
    with pytest.raises(NotReproducibleError) as caught:
        parallel_map(lambda x: next(count), list(range(60)), workers=2, verify=verify)
    assert caught.value.kind == "unstable"


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "text"),
    [
        ((3, [1]), {}, TypeError, "func must be callable, got int"),
        ((str,), {}, TypeError, "nothing to map over"),
        ((str, 5), {}, TypeError, "iterable 0 is of type int, which cannot be iterated over"),
        ((pow, [1, 2], [1]), {}, ValueError, "iterables differ in length: 2, 1"),
        ((pow, [1, 2], [1], iter([])), {}, ValueError, r"2, 1, unknown \(list_iterator\)"),
        ((str, [1]), {"args": 1}, TypeError, "args must be a tuple"),
        ((str, [1]), {"drop_none": 1}, TypeError, "drop_none must be a bool"),
        ((str, [1]), {"axis": 1}, TypeError, "unknown option 'axis'"),
        ((str, [1]), {"workers": 0}, ValueError, "workers must be at least 1"),
    ],
)
def test_bad_input(args, kwargs, error, text):
    with pytest.raises(error, match=text):
        parallel_map(*args, **kwargs)


# SciPy's `workers=`.


def rosen(x):
    return scipy.optimize.rosen(x)


def bump(x):
    return (x[0] - 1) ** 2 + np.cos(3 * x[1])


@pytest.fixture(params=["small", "eager"])
def mapper(request):
    """`parallel_map` as SciPy's `workers`, once as it is and once with workers in the smallest calls."""
    if request.param == "eager":
        request.getfixturevalue("eager")
    with options(workers=2):
        yield parallel_map


def test_differential_evolution(mapper):
    given = {"bounds": [(0, 2)] * 3, "rng": 1, "updating": "deferred", "maxiter": 4, "polish": False}
    got, want = (scipy.optimize.differential_evolution(rosen, workers=w, **given) for w in (mapper, 1))
    assert got.x.tobytes() == want.x.tobytes()
    assert got.nfev == want.nfev


def test_brute(mapper):
    got, want = (scipy.optimize.brute(bump, ((0, 2), (0, 3)), Ns=9, workers=w, finish=None) for w in (mapper, 1))
    assert got.tobytes() == want.tobytes()


def test_shgo(mapper):
    got, want = (scipy.optimize.shgo(bump, [(0, 2), (0, 3)], n=16, iters=1, workers=w) for w in (mapper, 1))
    assert got.x.tobytes() == want.x.tobytes()


def test_quad_vec(mapper):
    got, want = (scipy.integrate.quad_vec(lambda x: np.array([x, x**2]), 0, 1, workers=w) for w in (mapper, 1))
    assert got[0].tobytes() == want[0].tobytes()


def test_cubature(mapper):
    cubature = getattr(scipy.integrate, "cubature", None)
    if cubature is None:
        pytest.skip("SciPy is older than 1.15")
    got, want = (cubature(lambda x: np.cos(x).sum(axis=-1), [0, 0], [1, 1], workers=w) for w in (mapper, 1))
    assert got.estimate.tobytes() == want.estimate.tobytes()


def test_least_squares_and_minimize(mapper):
    if "workers" not in scipy.optimize.least_squares.__doc__:
        pytest.skip("SciPy is older than 1.16")
    got, want = (
        scipy.optimize.least_squares(lambda x: np.array([x[0] - 1, 10 * (x[1] - x[0] ** 2)]), [2.0, 2.0], workers=w)
        for w in (mapper, None)
    )
    assert got.x.tobytes() == want.x.tobytes()
    got, want = (
        scipy.optimize.minimize(rosen, [1.2, 0.9], method="L-BFGS-B", options={"workers": w} if w else {})
        for w in (mapper, None)
    )
    assert got.x.tobytes() == want.x.tobytes()


# The decorator.


@parallel
def some_function(x, power=2, skip=None):
    """Raise to a power."""
    return None if x == skip else x**power


@parallel(workers=2, executor="threads")
def threaded(x):
    return threading.current_thread().name


def test_decorated_function_is_itself():
    assert some_function(3) == 9
    assert some_function.__name__ == "some_function"
    assert some_function.__doc__ == "Raise to a power."
    assert pickle.loads(pickle.dumps(some_function)) is some_function


def test_the_blog_posts_example():
    x = list(range(100))
    y_serial = [some_function(one) for one in x]
    y_parallel = some_function.parallel(x)
    assert y_serial == y_parallel
    assert some_function.parallel(x, 3) == [one**3 for one in x]
    assert some_function.parallel(x, power=3, skip=5) == [one**3 for one in x if one != 5]
    assert some_function.parallel(range(4)) == [0, 1, 4, 9]
    assert_same_items(some_function.parallel(np.arange(4.0)), np.arange(4.0) ** 2)

    def plain(one):
        return one + 1

    plain.parallel = parallel(plain).parallel
    assert plain.parallel(x) == [one + 1 for one in x]


def none_for_odd(one, give=None):
    return None if one % 2 else (one if give is None else give)


@pytest.mark.parametrize("items", [[1, 2, 3, 4], range(1, 5), np.arange(1, 5), np.arange(1.0, 5.0)], ids=type)
def test_none_is_treated_alike_in_lists_and_arrays(items):
    want = [none_for_odd(one) for one in items]
    kept = parallel(drop_none=False)(lambda one: none_for_odd(one)).parallel(items)
    dropped = parallel(lambda one: none_for_odd(one)).parallel(items)
    nothing = parallel(lambda one: None).parallel(items)
    assert (type(kept), type(dropped), type(nothing)) == (type(dropped),) * 3
    if isinstance(items, np.ndarray):
        assert_same(kept, np.asarray(want))
        assert_same(dropped, np.asarray([one for one in want if one is not None]))
        assert_same(nothing, np.asarray([]))
    else:
        assert kept == want
        assert dropped == [one for one in want if one is not None]
        assert nothing == []


MIXED = {
    "arrays": lambda x: np.full(2, x),
    "lists": lambda x: [x, x + 0.5],
    "ragged": lambda x: np.arange(x),
    "ragged lists": lambda x: [x] * int(x),
    "tuples": lambda x: (x, np.full(3, x)),
    "tuples of two lengths": lambda x: (x,) * (1 + int(x) % 4),
    "tuples of ragged": lambda x: (x, np.arange(x)),
    "a tuple beside numbers": lambda x: x if x < 40 else (x, x),
    "texts": lambda x: "x" * int(x),
    "big-endian": lambda x: np.full(2, x, ">f8"),
    "dicts": lambda x: {"x": x},
}


def nested(results):
    """Results that compare by ``==``."""
    if isinstance(results, np.ndarray):
        return results.dtype.str, results.shape, results.tolist()
    value = list(map(nested, results)) if isinstance(results, list | tuple) else results
    return type(results).__name__, value


def stacked(values):
    """Arrays of single results as `parallel_apply` makes them, or the list where it raises."""
    widths = {len(one) if isinstance(one, tuple) else 0 for one in values}
    try:
        if len(widths) == 1 and widths != {0}:
            return tuple(np.asarray(list(one)) for one in zip(*values, strict=True))
        return np.asarray(values) if widths == {0} else values
    except ValueError:
        return values


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("drop_none", [True, False])
@pytest.mark.parametrize("how", [{"workers": 1}, {"workers": 2, "isolate": True}], ids=["here", "in workers"])
def test_none_beside_any_result_costs_nothing_that_was_computed(small_tasks, name, first, drop_none, how):
    give, a = MIXED[name], np.arange(first, 60 + first)

    def sometimes(x):
        return None if x % 2 else give(x)

    want = [sometimes(x) for x in a]
    want = stacked([one for one in want if one is not None or not drop_none])
    got = parallel(sometimes, drop_none=drop_none, **how).parallel(a)
    assert nested(got) == nested(want)


@pytest.mark.parametrize("name", [name for name in MIXED if name not in ("texts", "dicts")])
def test_results_that_make_no_array_are_a_list(name):
    """Without a None too: all has been computed by then."""
    got = parallel(lambda x: MIXED[name](x), workers=2, isolate=True).parallel(np.arange(60))
    want = stacked([MIXED[name](x) for x in np.arange(60)])
    assert isinstance(want, list) == (name not in ("arrays", "lists", "tuples", "big-endian"))
    assert nested(got) == nested(want)


def test_none_with_gaps_and_checks():
    def f(x):
        if x % 5 == 1:
            raise KeyError(x)
        return None if x % 2 else np.full(2, x)

    want = np.asarray([np.full(2, x) for x in range(40) if x % 2 == 0 and x % 5 != 1])
    with pytest.warns(GapWarning):
        assert_same(parallel(f, errors="ignore", workers=2).parallel(np.arange(40)), want)
    with pytest.warns(GapWarning):
        kept = parallel(f, errors="ignore", workers=2, drop_none=False).parallel(np.arange(40))
    assert [one is None for one in kept] == [x % 2 == 1 or x % 5 == 1 for x in range(40)]
    checked = parallel(lambda x: None if x % 2 else np.full(2, x), verify="full", workers=2)
    assert_same(checked.parallel(np.arange(40)), np.asarray([np.full(2, x) for x in range(0, 40, 2)]))
    here = os.getpid()
    with pytest.raises(NotReproducibleError):
        parallel(lambda x: None if os.getpid() == here else x, verify="full", workers=2).parallel(np.arange(400))
    with pytest.raises(TypeError, match="mask would be lost"):
        parallel(lambda x: None if x % 2 else np.ma.masked_equal([x, 1], 1)).parallel(np.arange(4))


def test_results_without_none_are_those_of_parallel_apply():
    a = np.arange(6.0).reshape(3, 2)
    for func in (np.sum, np.sort, lambda row: {"row": row.tolist()}, lambda row: (row.sum(), row)):
        got, want = parallel(lambda row, func=func: func(row)).parallel(a), parallel_apply(func, a)
        for one, other in zip(*((x,) if isinstance(x, np.ndarray) else x for x in (got, want)), strict=True):
            assert_same(one, other)


def test_options_of_the_decorator():
    with pytest.raises(TypeError, match="drop_none must be a bool, got 1"):
        parallel(drop_none=1)
    names = threaded.parallel(range(50))
    assert len(names) == 50
    with pytest.raises(TypeError, match="unknown option 'worker'"):
        parallel(worker=2)
    with pytest.raises(ValueError, match="workers"):
        parallel(workers=0)(lambda x: x)
    with pytest.raises(TypeError, match="func must be callable, got int"):
        parallel(3)
    with pytest.raises(TypeError, match="'len' cannot have .parallel; use parallel_map"):
        parallel(len)


class Bar:
    """A progress function that cannot be pickled."""

    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, done, total):
        pass


def test_a_decorated_function_leaves_its_executor_here(runner):
    @parallel(progress=Bar(), **runner)
    def half(x):
        return x / 2

    assert half.parallel(range(40)) == [k / 2 for k in range(40)]
    assert_same(half.parallel(np.arange(40)), np.arange(40) / 2)


def test_options_that_a_mapped_function_holds_come_without_executors(pool):
    kept = {"executor": pool, "progress": Bar()}
    one = parallel(**kept)(lambda x: x + 1)
    two = vectorize(lambda x: x + 2, **kept)
    three = options(**kept)(lambda x: parallel_map(lambda y: y + 3, [x]))
    got = parallel_map(lambda x: (one.parallel([x]), two([x, x]).tolist(), three(x)), range(3), isolate=True)
    assert got == [([k + 1], [k + 2, k + 2], [k + 3]) for k in range(3)]


def test_nested():
    got = parallel_map(lambda row: parallel_map(lambda x: x + 1, row), [[1, 2], [3]], workers=2, isolate=True)
    assert got == [[2, 3], [4]]
    assert parallel_apply(lambda x: sum(parallel_map(int, range(int(x)))), np.arange(4.0)).tolist() == [0, 0, 1, 3]
