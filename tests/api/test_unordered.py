"""`parallel_imap(ordered=False)` and ``starmap=True``, over executors, compared with plain loops."""

from __future__ import annotations

import collections
import itertools
import operator
import os
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import parwise
from parwise import ElementTimeoutError, Pool, parallel_imap, parallel_map

HOW = {
    "processes": {"workers": 2},
    "isolated": {"workers": 2, "isolate": True},
    "threads": {"workers": 2, "executor": "threads"},
    "serial": {"executor": "serial"},
}
KINDS = {"Pool": Pool, "ThreadPoolExecutor": ThreadPoolExecutor, "ProcessPoolExecutor": ProcessPoolExecutor}


@pytest.fixture(params=[*HOW, *KINDS])
def how(request):
    if request.param in HOW:
        yield HOW[request.param]
        return
    with KINDS[request.param](2) as executor:
        yield {"executor": executor}


def square(k):
    return k * k


def counted(items, **keywords):
    return collections.Counter(parallel_imap(*items, ordered=False, **keywords))


@pytest.mark.parametrize("count", [0, 1, 7, 3000])
@pytest.mark.parametrize("kind", [list, iter])
def test_the_results_of_the_loop(how, count, kind):
    assert counted((square, kind(range(count))), **how) == collections.Counter(map(square, range(count)))


def test_random_numbers_belong_to_items(how):
    def draw(k, rng):
        return k, rng.normal()

    streams = np.random.default_rng(3).spawn(40)
    assert sorted(parallel_imap(draw, range(40), ordered=False, rng=3, **how)) == [
        (k, rng.normal()) for k, rng in enumerate(streams)
    ]


def fails(k):
    if k in (30, 33):
        raise ValueError(f"no {k}")
    time.sleep(0.002)  # the work
    return k


def test_the_error_of_the_lowest_index_after_all_before_it(how):
    found = []
    with pytest.raises(ValueError, match="no 30") as caught:
        found.extend(iter_into(found, parallel_imap(fails, range(60), ordered=False, **how)))
    assert set(range(30)) <= set(found)
    assert len(found) == len(set(found))
    assert caught.value.__notes__ == ["in item 30: 30"]


def iter_into(found, results):
    for one in results:
        found.append(one)
    return ()


def test_an_error_waits_for_results_before_it(tmp_path):
    """Item 9 fails when many behind it are done, and item 0 ends after that."""
    behind, failed = str(tmp_path / "behind"), str(tmp_path / "failed")

    def work(k):
        if k == 30:
            open(behind, "w").close()
        if k == 0:
            wait_for((k, failed))
            time.sleep(0.1)  # the failure arrives
        if k == 9:
            wait_for((k, behind))
            open(failed, "w").close()
            raise ValueError("no 9")
        return k

    found = []
    with pytest.raises(ValueError, match="no 9"):
        iter_into(found, parallel_imap(work, range(60), ordered=False, workers=3, isolate=True))
    assert set(range(9)) <= set(found)
    assert len(found) > 9


def test_gaps(how):
    with pytest.warns(RuntimeWarning, match="no result for 2 of 60 elements"):
        found = list(parallel_imap(fails, range(60), ordered=False, errors="ignore", **how))
    assert sorted(one for one in found if one is not None) == [k for k in range(60) if k not in (30, 33)]
    assert found.count(None) == 2


def test_without_none(how):
    found = parallel_imap(lambda k: k if k % 3 else None, range(50), ordered=False, drop_none=True, **how)
    assert sorted(found) == [k for k in range(50) if k % 3]


def test_progress(how):
    seen = []
    list(parallel_imap(square, range(50), ordered=False, progress=lambda *one: seen.append(one), **how))
    assert seen[-1] == (50, 50)


def test_endless(how):
    results = parallel_imap(square, itertools.count(), ordered=False, **how)
    found = list(itertools.islice(results, 100))
    results.close()
    assert len(set(found)) == 100


def wait_for(item):
    """Return at once, or when a file appears; after a while in any case."""
    k, path = item
    until = time.monotonic() + 20
    while path is not None and not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.002)
    return k


@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("executor", ["processes", "threads", "Pool"])
def test_a_slow_item_holds_up_no_other(tmp_path, workers, executor):
    """All other results come while it runs: it ends once they have come."""
    go = tmp_path / "go"
    items = [(k, str(go) if k == 3 else None) for k in range(500)]
    found = []
    with Pool(workers) as pool:
        how = {"executor": pool} if executor == "Pool" else {"executor": executor}
        isolate = {} if executor == "threads" else {"isolate": True}
        for one in parallel_imap(wait_for, items, ordered=False, workers=workers, timeout=None, **how, **isolate):
            found.append(one)
            # Those that were sent to its worker with it, or are to be sent behind it, come after it.
            if len(found) == 450:
                go.touch()
    assert sorted(found) == list(range(500))
    assert found.index(3) >= 449


def test_timeouts_and_retries(tmp_path):
    def once(k):
        mark = tmp_path / str(k)
        if k == 5 and not mark.exists():
            mark.touch()
            os._exit(1)
        if k == 7:
            threading.Event().wait()
        return k

    with pytest.warns(RuntimeWarning, match="no result for 1 of 20"):
        found = list(parallel_imap(once, range(20), ordered=False, timeout=1, retries=1, errors="ignore", workers=2))
    assert sorted(k for k in found if k is not None) == [k for k in range(20) if k != 7]
    with pytest.raises(ElementTimeoutError):
        list(parallel_imap(once, [7, 8], ordered=False, timeout=0.2, workers=2))


def test_output_comes_in_order(capsys):
    def show(k):
        print(k)
        return k

    list(parallel_imap(show, range(200), ordered=False, workers=2, isolate=True))
    assert capsys.readouterr().out.split() == [str(k) for k in range(200)]


def test_pool_imap():
    with Pool(2) as pool:
        assert sorted(pool.imap(pow, [(2, 3), (3, 2)], ordered=False, starmap=True)) == [8, 9]
        assert list(pool.imap(divmod, [7, 9], args=(2,))) == [(3, 1), (4, 1)]


PAIRS = [(k, 3) for k in range(30)]


@pytest.mark.parametrize("kind", [list, iter, np.array])
def test_starmap(how, kind):
    expected = list(itertools.starmap(operator.add, kind(PAIRS)))
    assert parallel_map(operator.add, kind(PAIRS), starmap=True, **how) == expected
    assert list(parallel_imap(operator.add, kind(PAIRS), starmap=True, **how)) == expected


class Indexed:
    """What can be iterated over since it can be indexed, as the items of old libraries."""

    def __getitem__(self, k):
        return (6, 3)[k]


def test_starmap_takes_items_as_the_loop_does(how):
    items = [Indexed(), range(1, 3), np.array([4, 2])]
    assert parallel_map(operator.floordiv, items, starmap=True, **how) == [2, 0, 2]


def test_starmap_with_items_of_several_lengths(how):
    items = [(), (1,), (1, 2), "ab", [3, 4, 5]]

    def collect(*one, last, rng):
        return (*one, last, rng.integers(100))

    streams = np.random.default_rng(1).spawn(len(items))
    expected = [collect(*one, last=0, rng=rng) for one, rng in zip(items, streams, strict=True)]
    assert parallel_map(collect, items, starmap=True, kwargs={"last": 0}, rng=1, **how) == expected


def test_starmap_errors_name_the_item(how):
    with pytest.raises(ZeroDivisionError) as caught:
        parallel_map(operator.truediv, [(1, 1), (1, 0)], starmap=True, **how)
    assert caught.value.__notes__[0].startswith("in item 1: ")
    with pytest.raises(
        TypeError, match="with starmap=True each item is a tuple of arguments, got 7 of type int"
    ) as one:
        parallel_map(operator.truediv, [(1, 1), 7], starmap=True, **how)
    assert one.value.__notes__[0].startswith("in item 1: ")


def test_starmap_goes_by_the_name_of_the_function():
    with parwise.report() as report:
        parallel_map(square, [(k,) for k in range(5)], starmap=True)
    assert "square" in str(report)


def test_starmap_and_resume(tmp_path):
    """Another function is another run."""
    for _ in range(2):
        assert parallel_map(operator.add, PAIRS, starmap=True, resume=tmp_path / "run") == [k + 3 for k in range(30)]
    with pytest.raises(ValueError, match="func"):
        parallel_map(operator.mul, PAIRS, starmap=True, resume=tmp_path / "run")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: parallel_imap(square, [1], ordered="no"), "ordered must be a bool, got 'no' of type str"),
        (lambda: parallel_map(square, [1], starmap=1), "starmap must be a bool, got 1 of type int"),
        (lambda: parallel_map(pow, [1], [2], starmap=True), "starmap=True takes one iterable, of tuples of argum"),
        (lambda: parallel_map(3, [1], starmap=True), "func must be callable, got int"),
    ],
)
def test_refused_at_once(call, text):
    with pytest.raises(TypeError, match=text):
        call()


def test_no_warning_in_a_plain_call():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(parallel_imap(square, range(10), ordered=False)) == [k * k for k in range(10)]
