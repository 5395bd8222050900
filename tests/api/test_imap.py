"""`parallel_imap`: results in order as they are ready, compared with those of a plain generator."""

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
from hypothesis import given
from hypothesis import strategies as st

from parwise import WorkerDiedError, parallel_imap, parallel_map, report
from parwise._core.inputs import items as input_items
from parwise._executors.processes import inline
from parwise._executors.threads.executor import Threads

from ..support.examples import examples
from ..support.functions import FUNCTIONS, slowly
from ..support.internals import Job, default_pool
from ..support.oracle import assert_same_items

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
    assert_same_items(list(parallel_imap(func, iter(items), **how)), [func(item) for item in items])
    assert_same_items(list(parallel_imap(func, items, **how)), [func(item) for item in items])


def test_work_of_some_length(how):
    items = [float(k) for k in range(12)]
    assert_same_items(list(parallel_imap(slowly, items, **how)), items)


@examples(60)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=3),
    stop=st.integers(0, 300),
    workers=st.integers(1, 3),
    sized=st.booleans(),
)
def test_as_map_does(lengths, stop, workers, sized):
    """As many results, and the same error, as a generator over ``zip`` yields."""

    def f(*items):
        return (*items, 0.5 * sum(items))

    lists = [list(range(k, k + n)) for k, n in enumerate(lengths)]
    given = lists if sized and len(set(lengths)) == 1 else list(map(iter, lists))
    with at_once():
        found = drawn(parallel_imap(f, *given, workers=workers), stop)
    assert_same_items(found, drawn((f(*items) for items in zip(*map(iter, lists), strict=True)), stop))


def drawn(results, count):
    """Return the first `count` results, or those before an error and its text."""
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
    """Few more items are read than results were asked for, and none after the end."""
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
    """Results wait for an earlier one, but only a limited number of them."""
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
    """The interrupt does not wait for elements that workers are computing."""

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
    """Of a slow iterator no more items are read than workers can take at once."""
    monkeypatch.setattr(input_items, "SLOW_SECONDS", -1.0)
    here, elsewhere, waiting = [], [], []
    accept = Job.accept

    def count(job, task, outcome, who=None):
        if who is not None:  # a process, in which the function does not append to this list
            elsewhere.extend(range(task.lo, task.hi))
        accept(job, task, outcome, who)

    def items():
        for k in itertools.count():
            waiting.append(k - len(here) - len(elsewhere))
            yield k

    monkeypatch.setattr(Job, "accept", count)
    with contextlib.closing(parallel_imap(lambda k: here.append(k) or k, items(), verify=False, **how)) as results:
        assert list(itertools.islice(results, 200)) == list(range(200))
    assert max(waiting) < 20


def test_few_items_are_taken_at_a_time_if_the_function_is_faster(monkeypatch):
    """Items can be large, so that few of them should wait in memory."""
    monkeypatch.setattr(input_items, "READ_SECONDS", -1.0)
    stream = input_items.ItemStream((iter(range(100)),), any_thread=False, keep=False)
    for stop, least, first, last in ((100, 1, 9, 20), (100, 40, 40, 60), (100, None, 100, 100), (200, 101, 100, 100)):
        stream.read(stop, least)
        assert first <= stream.read_to <= last
    assert stream.count == 100


def test_thread_that_asks_takes_the_items(how):
    """A generator may hold objects that belong to one thread."""
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
    assert "in item 17: 17" in caught.value.__notes__
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
    def f(k):
        print(f"[{k}]", end="")
        return k

    said = ""
    for k in parallel_imap(f, range(40), **how):
        said += capsys.readouterr().out
        assert f"[{k}]" in said


def test_interrupt_and_the_next_call():
    """Ctrl-C while the caller waits for a result raises KeyboardInterrupt."""

    def f(k):
        if k == 2:
            os.kill(parent, signal.SIGINT)
            time.sleep(60)
        return k

    parent = os.getpid()
    with pytest.raises(KeyboardInterrupt):
        list(parallel_imap(f, range(6), workers=2, isolate=True))
    assert list(parallel_imap(abs, range(6), workers=2, isolate=True)) == list(range(6))


def test_left_in_the_midst(how):
    """A loop that is left early computes no further elements, and the next call is right."""
    for _ in range(5):
        for k in parallel_imap(slowly, itertools.count(), **how):
            if k == 3:
                break
        assert list(parallel_imap(lambda k: k, range(30), **how)) == list(range(30))


@pytest.mark.parametrize("more", [False, True])
def test_in_a_forked_child(how, more):
    """A forked child owns no workers: the generator raises there, and its deletion leaves the workers alone."""
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


def test_a_forked_child_leaves_threads_alone(monkeypatch):
    """One of them may have held their lock at the fork, for ever in the child."""
    parent, shutdown = os.getpid(), Threads.shutdown

    def noted(self, *args, **kwargs):
        if os.getpid() != parent:
            os._exit(7)
        return shutdown(self, *args, **kwargs)

    monkeypatch.setattr(Threads, "shutdown", noted)
    results = parallel_imap(slowly, range(6), executor="threads", workers=2)
    next(results)
    pid = os.fork()
    if pid == 0:
        del results
        gc.collect()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(list(results)) == 5


def test_dropped_by_one_of_its_own_threads():
    """The garbage collector may delete a generator in one of its own threads."""
    go, done = threading.Event(), threading.Event()

    def f(k):
        if k == 1:  # read ahead, however slow the machine
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
    """The first result is compared with a worker's, for few items only if no result has to wait for it."""
    pid = os.getpid()
    with pytest.warns(match="in a worker than in this process"):
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
