"""Results in order as they come: the plain generator is the oracle."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import signal
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parwise import WorkerDiedError, parallel_apply, parallel_imap, parallel_map, report
from parwise._core import input_items
from parwise._executors import inline
from parwise._workers import default_pool as shared
from parwise._workers.default_pool import default_pool

from .test_company import slowly
from .test_lists import FUNCTIONS, same

HOW = {
    "processes": {"workers": 2},
    "isolated": {"workers": 2, "isolate": True},
    "threads": {"workers": 2, "executor": "threads"},
    "serial": {"executor": "serial"},
    "one": {"workers": 1},
}


@pytest.fixture(params=[*HOW, "ThreadPoolExecutor", "ProcessPoolExecutor"])
def how(request):
    if request.param in HOW:
        yield HOW[request.param]
        return
    kind = {"ThreadPoolExecutor": ThreadPoolExecutor, "ProcessPoolExecutor": ProcessPoolExecutor}[request.param]
    with kind(2) as executor:
        yield {"executor": executor}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_items_of_any_kind(name, how):
    func, items = FUNCTIONS[name]
    same(list(parallel_imap(func, iter(items), **how)), [func(item) for item in items])
    same(list(parallel_imap(func, items, **how)), [func(item) for item in items])


def test_work_of_some_length(how):
    items = [float(k) for k in range(12)]
    same(list(parallel_imap(slowly, items, **how)), items)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=3),
    stop=st.integers(0, 300),
    workers=st.integers(1, 3),
    sized=st.booleans(),
)
def test_as_map_does(lengths, stop, workers, sized):
    """As many results, and the same error, as of the generator over ``zip``."""

    def f(*items):
        return (*items, 0.5 * sum(items))

    lists = [list(range(k, k + n)) for k, n in enumerate(lengths)]
    given = lists if sized and len(set(lengths)) == 1 else list(map(iter, lists))
    with at_once():
        found = drawn(parallel_imap(f, *given, workers=workers), stop)
    same(found, drawn((f(*items) for items in zip(*map(iter, lists), strict=True)), stop))


def drawn(results, count):
    """The first `count` results, or those before an error, and that."""
    found = []
    with contextlib.closing(results):
        try:
            found.extend(itertools.islice(results, count))
        except ValueError as error:
            found.append(str(error))
    return found


@contextlib.contextmanager
def at_once():
    """Hand over to workers however short the work."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COLD_SECONDS", "WARM_SECONDS"):
            patch.setattr(inline, name, -1.0)
        yield


def test_nothing_happens_before_it_is_asked(how):
    taken = []
    results = parallel_imap(taken.append, (taken.append(k) for k in range(9)), **how)
    assert taken == []
    del results


@pytest.mark.parametrize("wait", [False, True])
def test_items_are_taken_as_they_are_needed(how, wait):
    """Of endless ones not many more than were asked for, and none after the end."""
    taken = []

    def endless():
        for k in itertools.count():
            taken.append(k)
            yield k

    def f(k):
        if wait:
            time.sleep(0.002)  # the work
        return k

    results = parallel_imap(f, endless(), **how)
    for k in range(40):
        with at_once():
            assert next(results) == k
        # Two workers hold two tasks each, as long as it takes to compute 0.1 s of work, and as many are done.
        assert len(taken) <= k + (600 if wait else 10**7)
    results.close()
    count = len(taken)
    assert next(results, "end") == "end"
    assert len(taken) == count


def test_slow_first_result_holds_up_a_few_only():
    """Results wait for their turn, but workers do not fill the memory with them."""
    taken = []

    def items():
        for k in range(1000):
            taken.append(k)
            yield k

    def f(k):
        time.sleep(0.5 if k == 1 else 0.001)  # the work
        return np.zeros(1000)

    results = parallel_imap(f, items(), workers=2, isolate=True)
    next(results)
    next(results)
    assert len(taken) < 700
    results.close()


@pytest.mark.parametrize("call", [parallel_imap, parallel_map])
def test_interrupt_while_an_item_is_taken(call, tmp_path):
    """It does not wait for what workers are at."""

    def items():
        yield from range(3)
        raise KeyboardInterrupt

    def f(k):
        time.sleep(2)
        (tmp_path / str(k)).touch()

    with pytest.raises(KeyboardInterrupt):
        list(call(f, items(), workers=2, isolate=True))
    assert not list(tmp_path.iterdir())


def test_results_do_not_wait_for_items_that_are_long_in_coming(monkeypatch, how):
    """As a stream's that is under way; only what workers could have at once is taken."""
    monkeypatch.setattr(input_items, "SLOW_SECONDS", -1.0)
    taken = []
    results = parallel_imap(lambda k: k, (taken.append(k) or k for k in itertools.count()), **how)
    for k in range(40):
        assert next(results) == k
        assert len(taken) <= k + 1000
    results.close()


def test_few_items_are_taken_at_a_time_if_the_function_is_faster(monkeypatch):
    """They could be large."""
    monkeypatch.setattr(input_items, "READ_SECONDS", -1.0)
    feed = input_items.ItemFeed((iter(range(100)),), any_thread=False, keep=False)
    assert 9 <= feed.fill(100, 1) <= 20
    assert feed.fill(100, 40) >= 40
    assert feed.fill(100) == 100
    assert feed.fill(200, 101) == 100
    assert feed.count == 100


def test_thread_that_asks_takes_the_items(how):
    """A generator may hold what belongs to its thread."""
    takers = []

    def items():
        for k in range(60):
            takers.append(threading.get_ident())
            yield k

    results = parallel_imap(lambda k: k, items(), **how)
    assert next(results) == 0
    found = []
    thread = threading.Thread(target=lambda: found.extend(results))
    thread.start()
    thread.join()
    assert found == list(range(1, 60))
    assert set(takers) <= {threading.get_ident(), thread.ident}
    assert takers[-1] in (threading.get_ident(), thread.ident)


def test_error_comes_behind_the_results_before_it(how):
    def f(k):
        if k in (17, 18):
            raise KeyError(k)
        return k

    found = []
    results = parallel_imap(f, range(60), **how)
    with pytest.raises(KeyError, match="17") as caught:
        found.extend(results)
    assert "in item 17" in caught.value.__notes__
    assert found == list(range(17))
    assert next(results, "end") == "end"


def test_error_of_an_iterator_comes_behind_the_results_before_it(how):
    def items():
        yield from range(23)
        raise OSError("disk is gone")

    found = []
    results = parallel_imap(lambda k: k, items(), **how)
    with pytest.raises(OSError, match="disk is gone"):
        found.extend(results)
    assert found == list(range(23))
    assert next(results, "end") == "end"


def test_errors_ignored(how):
    def f(k):
        if k % 5 == 2:
            raise ValueError(k)
        return k

    with pytest.warns(RuntimeWarning, match="no result for 6 of 30 elements"):
        found = list(parallel_imap(f, range(30), errors="ignore", **how))
    assert found == [None if k % 5 == 2 else k for k in range(30)]


@pytest.mark.parametrize("index", [0, 3, 9])
def test_death(index):
    def f(k):
        if k == index:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)  # the work, so that each task is one item
        return k

    found = []
    with pytest.raises(WorkerDiedError) as caught:
        found.extend(parallel_imap(f, range(20), workers=2, isolate=True))
    assert caught.value.index == index
    assert found == list(range(len(found)))
    assert len(found) <= index
    assert list(parallel_imap(abs, range(20), workers=2, isolate=True)) == list(range(20))


def test_death_and_another_try(tmp_path):
    def f(k):
        if k == 7:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(tmp_path / "once", os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        return k

    assert list(parallel_imap(f, range(20), workers=2, isolate=True, retries=1)) == list(range(20))


def test_timeout():
    def f(k):
        while k == 3:
            pass
        return k

    with pytest.warns(RuntimeWarning, match="took more than timeout"):
        found = list(parallel_imap(f, range(6), workers=2, timeout=0.3, errors="ignore"))
    assert found == [0, 1, 2, None, 4, 5]


def test_text_comes_before_its_result(capsys, how):
    if not isinstance(how.get("executor", ""), str):
        pytest.skip("prints there, not here")

    def f(k):
        print(f"[{k}]", end="")
        return k

    said = ""
    for k in parallel_imap(f, range(40), **how):
        said += capsys.readouterr().out
        assert f"[{k}]" in said


def test_interrupt_and_the_next_call():
    """Ctrl-C while it waits for a result."""

    def f(k):
        if k == 2:
            os.kill(parent, signal.SIGINT)
            time.sleep(60)
        return k

    parent = os.getpid()
    with pytest.raises(KeyboardInterrupt):
        list(parallel_imap(f, range(6), workers=2, isolate=True))
    assert list(parallel_imap(abs, range(6), workers=2, isolate=True)) == list(range(6))


def test_other_calls_in_the_loop():
    """They have workers of their own: those of the loop are busy."""
    rows = np.random.default_rng(0).random((50, 30))
    found = []
    for k in parallel_imap(lambda k: k, range(30), workers=2, isolate=True):
        if k % 10 == 0:
            found.append(parallel_apply(np.sort, rows, workers=2, isolate=True).tobytes())
            found.append(len(list(parallel_imap(abs, range(5), workers=2, isolate=True))))
    assert found == [np.sort(rows).tobytes(), 5] * 3


def test_workers_are_used_again():
    """By the next call of whatever kind, and none are left over."""

    pool = default_pool()
    before = {link.pid for link in pool.workers}
    assert set(parallel_imap(lambda k: os.getpid(), range(50), workers=3, isolate=True)) <= before
    assert default_pool() is pool
    assert {link.pid for link in pool.workers} == before


def test_generator_that_is_left_alone():
    """Its workers are missing for nobody, and gone with it."""
    results = parallel_imap(lambda k: k, range(30), workers=2, isolate=True)
    next(results)
    mine = shared._default
    assert list(parallel_map(lambda k: k, range(30), workers=2, isolate=True)) == list(range(30))
    other = default_pool()
    assert mine is not other
    del results
    assert default_pool() is other
    other.stop()  # the one more fork server that this test made
    shared._default = None


def test_left_in_the_midst(how):
    """The rest is not computed, and the next call is right."""
    for _ in range(5):
        for k in parallel_imap(slowly, itertools.count(), **how):
            if k == 3:
                break
        assert list(parallel_imap(lambda k: k, range(30), **how)) == list(range(30))


@pytest.mark.parametrize("more", [False, True])
def test_in_a_forked_child(how, more):
    """It cannot go on there, where the workers are not its own, and leaves them alone when it is dropped."""
    large = np.ones(300_000)
    results = parallel_imap(lambda k: slowly(k + large[0]), range(30), **how)
    assert next(results) == 1.0
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        code = 0
        if more:
            try:
                code = len(list(results)) - 29
            except RuntimeError as error:
                code = "was forked from" not in str(error)
        del results
        gc.collect()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(results) == [k + 1.0 for k in range(1, 30)]


def test_dropped_by_one_of_its_own_threads():
    """In which the collector has found it."""
    go, done = threading.Event(), threading.Event()

    def f(k):
        if k == 5:
            go.wait(60)
            gc.collect()
            done.set()
        return k

    def use():
        results = parallel_imap(f, itertools.count(), workers=2, executor="threads")
        assert next(results) == 0
        circle = [results]
        circle.append(circle)

    gc.disable()
    try:
        use()
        go.set()
        assert done.wait(60)
    finally:
        gc.enable()


def test_in_a_thread_of_its_own_executor():
    with ThreadPoolExecutor(1) as executor:
        found = executor.submit(lambda: list(parallel_imap(abs, range(100), executor=executor)))
        assert found.result(60) == list(range(100))


def test_pool_that_is_put_back_while_another_one_is_made(monkeypatch):
    """The collector may come upon a generator at any line, in the same thread."""
    pool = default_pool()
    made = []

    class Made(shared.WorkerPool):
        def __init__(self):
            super().__init__()
            made.append(self)
            shared.put_back(pool)

    with monkeypatch.context() as patch:
        patch.setattr(shared, "WorkerPool", Made)
        patch.setattr(shared, "_default", None)
        assert default_pool() is pool
    assert len(made) == 1
    assert default_pool() is pool


def test_small_ones_start_no_process():
    default_pool().stop()
    assert list(parallel_imap(abs, range(100), workers=2)) == list(range(100))
    assert list(parallel_imap(abs, iter(range(100)), workers=2)) == list(range(100))
    assert not default_pool().workers


def test_random_numbers_and_nones():
    def f(k, a, *, rng, b):
        return None if k % 3 == 0 else (k, a, b, rng.random())

    given = {"args": (1,), "kwargs": {"b": 2}, "rng": 5, "drop_none": True}
    want = parallel_map(f, range(40), executor="serial", **given)
    assert len(want) == 26
    for how in HOW.values():
        assert list(parallel_imap(f, range(40), **given, **how)) == want


def test_bits_are_compared():
    """The first result with a worker's: of fewer items only where nobody waits for it."""
    pid = os.getpid()
    with pytest.warns(match="other bits"):
        list(parallel_imap(lambda k: (slowly(0.0), os.getpid() == pid)[1], range(24), workers=2))


def test_wrong_arguments_are_told_at_once():
    with pytest.raises(TypeError, match="callable"):
        parallel_imap(3, [1])
    with pytest.raises(TypeError, match="cannot be iterated over"):
        parallel_imap(abs, 3)
    with pytest.raises(ValueError, match="differ in length"):
        parallel_imap(abs, [1], [1, 2])
    with pytest.raises(ValueError, match="verify=True"):
        parallel_imap(abs, [1], verify=True)
    with pytest.raises(TypeError, match="drop_none"):
        parallel_imap(abs, [1], drop_none=1)
    with pytest.raises(TypeError, match="unknown option"):
        parallel_imap(abs, [1], worker=2)


def test_nested():
    def outer(k):
        return sum(parallel_imap(lambda j: j * k, range(4)))

    assert parallel_map(outer, range(10), workers=2, isolate=True) == [6 * k for k in range(10)]


def test_thread_that_holds_the_usual_workers():
    """A generator finds others then."""
    holding, done = threading.Event(), threading.Event()
    pool = default_pool()

    def hold():
        with pool.lock:
            holding.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(60)
    try:
        assert list(parallel_imap(abs, range(30), workers=2, isolate=True)) == list(range(30))
    finally:
        done.set()
        thread.join()
    assert default_pool() is pool


def test_warnings_go_where_the_loop_is():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(parallel_imap(lambda k: 1 / k, range(3), errors="ignore", workers=1))
    assert [one.filename for one in caught] == [__file__]


def test_progress_and_report(how):
    seen = []
    with report() as r:
        found = list(
            parallel_imap(lambda k: k, range(300), progress=lambda done, total: seen.append((done, total)), **how)
        )
    assert found == list(range(300))
    assert seen == sorted(seen)
    assert seen[-1] == (300, 300)
    (call,) = r.to_dict()["calls"]
    assert call["elements"] == 300
    assert call["caller"]["elements"] + sum(one["elements"] for one in call["per_worker"]) == 300


def test_progress_of_what_is_left_in_the_midst(how):
    seen = []
    results = parallel_imap(lambda k: k, itertools.count(), progress=lambda *numbers: seen.append(numbers), **how)
    with report() as r:
        assert [next(results) for _ in range(5)] == list(range(5))
        results.close()
    assert all(total is None for _, total in seen)
    assert len(r.calls) == 1
