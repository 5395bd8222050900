"""Where the time went, and what the machine offers."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import parwise
from parwise import parallel_apply, parallel_map
from parwise._core.call import Call
from parwise._executors.processes import background, inline
from parwise._executors.processes import runner as processes
from parwise._report import observer
from parwise._report.record import GAP_SHARE, Timeline, name_of

from ..support.functions import ISOLATED, worker_pids
from ..support.internals import default_pool
from ..support.oracle import assert_same, loop

stages = pytest.mark.skipif(os.environ.get("PARWISE_DIRECT") == "always", reason="PARWISE_DIRECT=always stages nothing")


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:distributed")

A = np.arange(60.0).reshape(20, 3)


def total(row):
    return row.sum()


def slow(x):
    time.sleep(0.001)
    return x


def entry(func, *arrays, **options):
    """The one entry of a report on one call."""
    with parwise.report() as r:
        assert_same(parallel_apply(func, *arrays, **options), loop(func, *arrays))
    (found,) = r.to_dict()["calls"]
    assert json.loads(json.dumps(found)) == found
    return found


def test_every_executor_is_reported(runner):
    found = entry(total, A, **runner)
    lanes = [found["caller"], *found["per_worker"]]
    assert found["function"] == "total"
    assert found["elements"] == 20
    assert found["error"] is None
    assert sum(one["elements"] for one in lanes) == 20
    assert all(one["tasks"] <= one["elements"] for one in lanes)
    assert found["f_seconds"] == pytest.approx(sum(one["busy_seconds"] for one in lanes))
    assert all(0 <= one["busy_share"] <= 1 for one in lanes)
    assert found["caller"]["busy_seconds"] + found["waiting_seconds"] <= found["seconds"]
    assert (found["why_serial"] is None) == bool(found["per_worker"])


@stages
def test_workers_have_lanes_of_their_own():
    found = entry(slow, np.arange(40.0), isolate=True, workers=2)
    assert {one["name"] for one in found["per_worker"]} == {
        f"worker {worker.pid}" for worker in default_pool().workers[:2]
    }
    assert found["caller"]["elements"] == 0
    assert (found["executor"], found["workers"]) == ("processes", 2)
    assert found["bytes_staged"] == 40 * 8
    assert found["f_seconds"] >= 40 * 0.001
    assert 0 < found["startup_seconds"] < found["seconds"]
    assert 0 < found["waiting_seconds"] < found["seconds"]


def test_spans_are_what_workers_say():
    """By their own clock: by ours a task would end when we hear of it."""

    def f(x):
        return time.perf_counter()

    with parwise.report() as r:
        moments = parallel_apply(f, np.arange(40.0), isolate=True, workers=2)
    spans = [span for lane in r.calls[0].worker_timelines for span in lane.spans]
    assert all(any(begin <= moment <= end for begin, end in spans) for moment in moments)


def test_workers_elsewhere_have_names(process_executor):
    found = entry(total, A, executor=process_executor)
    assert found["executor"] == "ProcessPoolExecutor"
    assert found["startup_seconds"] is None
    pids = {re.fullmatch(rf"worker {os.uname().nodename} (\d+)", one["name"])[1] for one in found["per_worker"]}
    assert pids <= {str(pid) for pid in process_executor._processes}
    assert pids


def test_pickled_items_are_staged():
    with parwise.report() as r:
        assert parallel_map(len, ["ab" * 1000, "c" * 500], isolate=True, workers=2) == [2000, 500]
    assert 2500 < r.calls[0].bytes_staged < 4000


def test_several_calls_and_reports_in_reports():
    with parwise.report() as outer:
        parallel_apply(total, A, workers=1)
        with parwise.report() as inner:
            parallel_apply(np.sum, A, executor="serial")
        parallel_map(len, ["a", "b"])
    parallel_apply(np.max, A)
    assert [one.function for one in outer.calls] == ["total", "sum", "len"]
    assert [one.function for one in inner.calls] == ["sum"]
    assert observer.reports.get() == ()


def test_other_threads_are_not_reported():
    with parwise.report() as r:
        thread = threading.Thread(target=parallel_apply, args=(total, A))
        thread.start()
        thread.join()
    assert r.calls == []
    assert str(r) == "no call so far"
    assert r._repr_html_() == "<p>no call so far</p>"


def test_a_report_is_open_once():
    with parwise.report() as r:
        parallel_apply(total, A)
        with pytest.raises(RuntimeError, match="open already"), r:
            raise AssertionError("not reached")
    with r:
        parallel_apply(total, A)
    assert len(r.calls) == 2


def test_a_call_that_fails_is_reported(runner):
    def f(row):
        raise KeyError("no")

    with parwise.report() as r, pytest.raises(KeyError):
        parallel_apply(f, A, **runner)
    assert r.calls[0].error == "KeyError"
    assert "ended by     KeyError" in str(r)
    assert r.calls[0].seconds > 0


@pytest.mark.parametrize("options", [{"workers": 1}, {"executor": "threads", "workers": 2}, {"workers": 2}])
@pytest.mark.parametrize("call", [parallel_map, parallel_apply])
def test_elements_up_to_the_one_that_raises_are_reported(call, options):
    def f(x):
        seen.append(x)
        time.sleep(0.0001)
        return 1 // (17 - int(x))

    seen = []
    with parwise.report() as r, pytest.raises(ZeroDivisionError):
        call(f, np.arange(40), verify=False, **options)
    caller, *lanes = [r.calls[0].caller, *r.calls[0].worker_timelines]
    here = [one for one in lanes if one.name.startswith("thread")]
    assert sum(one.elements for one in [caller, *here]) == len(seen)
    assert r.calls[0].f_seconds >= 0.0001 * len(seen)


def test_nested_calls_are_part_of_the_one_around():
    def f(row):
        return parallel_apply(np.negative, row).sum()

    with parwise.report() as r:
        parallel_apply(f, A, workers=1)
    assert [one.function for one in r.calls] == ["f"]

    def g(row):
        with parwise.report() as inner:
            parallel_apply(np.negative, row)
        return inner.calls[0].why

    assert parallel_map(g, A, workers=1)[0] == "it was called within a mapped function"


# Why a call stayed serial.


@pytest.mark.parametrize(
    ("options", "array", "why"),
    [
        ({"workers": 1}, A, "workers=1"),
        ({"executor": "serial"}, A, "executor='serial'"),
        ({}, A[:1], "there is one element only"),
        ({}, A[:0], "there was nothing to compute"),
        ({"executor": "threads", "workers": 1}, A, "workers=1"),
    ],
)
def test_why_serial_from_the_beginning(options, array, why):
    assert entry(total, array, **options)["why_serial"] == why


def test_why_serial_pool(pool):
    assert entry(total, A, executor=pool, workers=1)["why_serial"] == "workers=1"


def test_why_serial_one_block():
    with parwise.report() as r:
        parallel_apply(np.cumsum, A[:, 0], vectorized=True)
    assert r.calls[0].why == "there is one block only"


def test_why_serial_one_cpu(monkeypatch):
    monkeypatch.setattr("parwise._executors.job.job.cpu_count", lambda: 1)
    monkeypatch.setattr("parwise._report.record.cpu_count", lambda: 1)
    assert entry(slow, np.arange(60.0))["why_serial"] == "this process may use one CPU"


def test_why_serial_small():
    pattern = r"all of it took [\d.e-]+ ms; workers pay from 6 ms of work on"
    assert re.fullmatch(pattern, entry(total, A)["why_serial"])


def without_helper(monkeypatch):
    """However long one element takes, as on a busy machine, no helper thread starts workers."""
    monkeypatch.setattr(background.BackgroundDispatcher, "help_after", lambda self: 3600.0)
    monkeypatch.setattr(background.BackgroundDispatcher, "help_after_at_least", lambda self: 3600.0)


@pytest.mark.parametrize("looks", [(0.002,), (0.002, 60.0)])
def test_why_serial_small_and_cold(monkeypatch, looks):
    """Without workers a few milliseconds are not worth to start any."""
    default_pool().stop()
    monkeypatch.setattr(inline, "COLD_LOOKS", looks)
    monkeypatch.setattr(inline, "COLD_SECONDS", 3600.0)
    monkeypatch.setattr(background, "COLD_SECONDS", 3600.0)
    without_helper(monkeypatch)
    found = entry(slow, np.arange(20.0))
    why, _, advice = found["why_serial"].partition("; ")
    known = "all of it took _ ms" if len(looks) > 1 else "_ ms of work were left after the first elements"
    assert re.sub(r"[\d.]+(e\+\d+)?", "_", why) == known
    assert advice == "starting workers pays from 3.6e+06 ms of work on"


def test_why_serial_blas(monkeypatch):
    """Threads of BLAS are seen to run at each look."""
    monkeypatch.setattr("parwise._system.blas.ThreadWatch.running", lambda self, activity=None: True)
    monkeypatch.setattr("parwise._system.blas.ThreadWatch.at_work", lambda self: True)
    monkeypatch.setattr(background, "workers_beside", lambda threads, workers: 1)
    monkeypatch.setattr(inline, "cpu_is_idle", lambda: True)
    monkeypatch.setattr(inline.known_paces, "_known", {})  # that of an earlier call, without them
    found = entry(slow, np.arange(60.0), workers=2)
    assert found["why_serial"] == "BLAS or OpenMP uses all CPUs already, in each call of the function"


@pytest.mark.parametrize("count", [20, 60])  # all of it within the first milliseconds, and not
def test_why_serial_busy(monkeypatch, count):
    worker_pids(**ISOLATED)
    monkeypatch.setattr(inline, "cpu_is_idle", lambda: False)
    monkeypatch.setattr(inline, "BUSY_SECONDS", 3600.0)
    without_helper(monkeypatch)
    monkeypatch.setattr(inline, "WARM_SECONDS", 0.0)  # on a slow machine little may be left after the first elements
    why = entry(slow, np.arange(count, dtype=float), workers=2)["why_serial"]
    assert why.endswith("other programs use all CPUs, and workers then pay from 3.6e+06 ms of work on")


def test_why_serial_another_call_has_the_workers(monkeypatch):
    monkeypatch.setattr(inline, "cpu_is_idle", lambda: True)  # else it is too short to share
    with default_pool().lock:
        found = entry(slow, np.arange(20.0), workers=2)
    assert found["why_serial"] == "another thread's call has the workers"


@pytest.mark.usefixtures("eager")
def test_why_taken_back(monkeypatch):
    monkeypatch.setattr(processes.SlowWorkers, "too_slow", lambda self: self._dispatcher.computed > 0)
    found = entry(slow, np.arange(200.0), workers=2)
    assert found["why_serial"].startswith("it went back to the caller")
    assert found["per_worker"]


# What is shown.


def mixed():
    with parwise.report() as r:
        parallel_apply(slow, np.arange(40.0), isolate=True, workers=2)
        parallel_apply(slow, np.arange(9.0), workers=1)
    return r


@stages
def test_text():
    text = str(mixed())
    first, second = text.split("\n\n")
    assert re.match(r"slow: 40 elements in [\d.]+ ms \(executor processes, 2 workers\)\n", first)
    assert re.search(r"\n  in f         [\d.]+ ms in all, 0 s of it in the caller\n", first)
    assert re.search(r"\n  start-up     [\d.]+ [mu]s until the first worker served\n", first)
    assert re.search(r"\n  waiting      [\d.]+ ms of the caller's\n", first)
    assert "\n  staged       320 B of arguments\n" in first
    assert len(re.findall(r"\n  worker \d+ +\d+ tasks? +\d+ elements? +[\d.]+ ms in f +\d+% busy", first)) == 2
    assert "\n  serial       workers=1\n" in second
    assert "staged" not in second


def test_html():
    def f(x):
        return x

    f.__name__ = "<f & co>"
    with parwise.report() as r:
        parallel_apply(f, np.arange(9.0), workers=1)
    shown = r._repr_html_()
    assert "&lt;f &amp; co&gt;: 9 elements" in shown
    assert "<f &" not in shown
    assert "<svg" in shown
    for tag in ("table", "tr", "td", "th", "p", "b", "svg", "text"):
        assert len(re.findall(f"<{tag}[ >]", shown)) == shown.count(f"</{tag}>")


def test_timeline():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    r = mixed()
    figure, ax = pyplot.subplots()
    assert r.plot(ax) is ax
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "caller"
    assert all(name.startswith("worker ") for name in names[1:])
    assert len(names) == 3
    whole = r.calls[-1].begun + r.calls[-1].seconds - r.calls[0].begun
    ends = [box.x1 for box in (path.get_extents() for each in ax.collections for path in each.get_paths())]
    assert min(ends) > 0
    assert max(ends) == pytest.approx(whole)
    other = r.plot()
    assert other is not ax
    assert re.fullmatch(r"\d calls\nabout [\d.e+-]+ times as fast as the plain loop", other.get_title())
    assert [text.get_text() for text in other.get_legend().get_texts()] == ["in the function", "rest of the call"]
    ax.set_title("mine")
    assert r.plot(ax).get_title() == "mine"
    pyplot.close(other.figure)
    pyplot.close(figure)


def test_timeline_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        mixed().plot()


def test_spans_of_tasks_in_a_row_are_one():
    lane = Timeline("caller")
    for k in range(10):
        lane.add(2, begun=k * 1.0, seconds=0.9, gap=0.2)
    lane.add(2, begun=11.0, seconds=0.5, gap=0.2)
    assert lane.spans == [[0.0, 9.9], [11.0, 11.5]]
    assert (lane.tasks, lane.elements) == (11, 22)
    assert lane.busy == pytest.approx(9.5)
    assert GAP_SHARE < 0.01


def test_names_of_functions():
    class Callable:
        def __call__(self, x):
            return x

    assert name_of(np.sum) == "sum"
    assert name_of(Callable()) == "Callable"
    assert name_of(functools.partial(functools.partial(total), 3)) == "total"
    wrapped = functools.wraps(total)(lambda *given: total(*given))
    assert name_of(wrapped) == "total"


def test_a_report_holds_no_array():
    with parwise.report() as r:
        parallel_apply(total, A)
    assert not any(isinstance(value, np.ndarray | Call) for value in vars(r.calls[0]).values())


# python -m parwise


def test_the_machine():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "parwise"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    names = [
        "parwise",
        "CPUs",
        "BLAS",
        "executor",
        "memory",
        "kind",
        "start-up",
        "wake",
        "copy",
        "direct",
        "speed",
        "verdict",
    ]
    assert list(lines) == names
    assert lines["parwise"].startswith(f"{parwise.__version__} on Python 3.")
    assert f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} by affinity" in lines["CPUs"]
    assert re.search(r"\d threads?", lines["BLAS"])
    assert "memfd" in lines["memory"]
    assert re.match(r"[\d.]+ m?s until the first worker is up, [\d.]+ m?s until \d+ worker", lines["start-up"])
    assert re.match(r"[\d.]+ [mu]s for a message", lines["wake"])
    assert re.match(r"[\d.]+ [GM]B/s into a worker's slots of [\d.]+ [kM]B, [\d.]+ [GM]B/s out", lines["copy"])
    assert lines["direct"] in (
        "workers read and write large arrays themselves",
        "workers get copies: the system does not allow more, or it is switched off",
    )
    assert (
        "workers pay for calls of more than 30 ms of work, and of more than 6 ms once they have started"
        in lines["verdict"]
    )


def test_the_machine_with_one_cpu_or_without_workers(monkeypatch, capsys):
    from parwise import __main__

    monkeypatch.setattr(__main__, "cpu_count", lambda: 1)
    monkeypatch.setattr(__main__, "cpu_quota", lambda: 0.5)
    lines = list(__main__.describe())
    assert "a cgroup quota of 0.5" in lines[1]
    assert lines[-1] == "verdict   one CPU: every call is the plain loop, in this process"

    def fail(workers):
        raise parwise.ParwiseError("none today")

    monkeypatch.setattr(__main__, "measure", fail)
    *_, workers, verdict = __main__.describe()
    assert workers == "workers   cannot be started: none today"
    assert "executor='threads'" in verdict


def test_the_machine_leaves_no_process():
    """Workers and fork server are gone when it ends: the pipe that they have inherited is at its end."""
    reader, writer = os.pipe()
    subprocess.run([sys.executable, "-m", "parwise"], stdout=writer, pass_fds=[writer], timeout=60, check=True)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    assert "verdict" in text


def test_how_many_times_as_fast_as_the_loop():
    with parwise.report() as r:
        parwise.parallel_map(slow, range(40), workers=2, isolate=True)
    (call,) = r.to_dict()["calls"]
    assert call["speedup"] == call["f_seconds"] / call["seconds"]
    assert f"speed-up     about {call['speedup']:.2g} times as fast as the plain loop" in str(r)
    assert "speed-up" in r._repr_html_()
    with parwise.report() as r:
        parwise.parallel_map(slow, range(2), workers=1)
    assert "speed-up" not in str(r)
