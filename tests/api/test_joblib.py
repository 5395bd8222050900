"""joblib's backend: order, errors, generators, nested calls, dead workers, interrupts, threads, scikit-learn."""

from __future__ import annotations

import decimal
import json
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest

from parwise import WorkerDiedError, parallel_map

from ..support.scripts import run_script

joblib = pytest.importorskip("joblib")
threadpoolctl = pytest.importorskip("threadpoolctl")
Parallel, delayed = joblib.Parallel, joblib.delayed
backend = pytest.importorskip("parwise._api.joblib_backend")


@pytest.fixture(autouse=True)
def _parwise():
    """Run calls here with two workers, and end these after each test."""
    with joblib.parallel_config(backend="parwise", n_jobs=2):
        yield
    while backend._idle:
        backend._idle.pop()[0].shutdown()


def pid_of(_=None):
    return os.getpid()


def square(x):
    return x * x


def fails_at_7(x):
    if x == 7:
        raise LookupError(x)
    return x


def test_results_are_in_order():
    got = Parallel()(delayed(lambda x, b: (x, b, os.getpid() != here))(k, b=[k]) for k in range(300))
    assert got == [(k, [k], True) for k in range(300)]


here = os.getpid()


def test_arrays_have_the_bits_of_the_loop():
    a = np.asfortranarray(np.random.default_rng(3).standard_normal((40, 97)))[:, ::2]
    got = Parallel()(delayed(lambda row, all_: row @ all_.T)(row, a) for row in a)
    assert [one.tobytes() for one in got] == [(row @ a.T).tobytes() for row in a]
    # An argument may be written to, as in the loop, and not only where it is small.
    large = np.zeros(200_000)
    assert Parallel()(delayed(lambda v: v.__iadd__(1).sum())(large) for _ in range(3)) == [200_000.0] * 3
    assert not large.any()


@pytest.mark.parametrize(("n_jobs", "workers"), [(1, 1), (None, 2), (2, 2), (3, 3), (-1, joblib.cpu_count())])
def test_number_of_jobs(n_jobs, workers):
    parallel = Parallel(n_jobs=n_jobs)
    with parallel:
        assert parallel._effective_n_jobs() == workers
        pids = set(parallel(delayed(pid_of)() for _ in range(20)))
    assert len(pids) <= workers
    assert (here in pids) == (workers == 1)
    with pytest.raises(ValueError, match="n_jobs == 0 in Parallel has no meaning"):
        Parallel(n_jobs=0)(delayed(pid_of)() for _ in range(2))


def test_workers_are_kept_for_the_next_call():
    wait = delayed(lambda: (time.sleep(0.02), os.getpid())[1])
    first, second = (set(Parallel()(wait() for _ in range(6))) for _ in range(2))
    assert first == second
    assert len(first) == 2
    assert len(set(Parallel(n_jobs=3)(wait() for _ in range(9)))) == 3
    assert len(backend._idle) == 1


@pytest.mark.parametrize("kind", ["generator", "generator_unordered"])
def test_generators(kind):
    results = Parallel(return_as=kind)(delayed(square)(k) for k in range(50))
    got = list(results)
    assert (got if kind == "generator" else sorted(got)) == [k * k for k in range(50)]


def test_a_generator_that_is_dropped_ends_its_calls():
    results = Parallel(return_as="generator")(delayed(lambda k: time.sleep(60 if k else 0))(k) for k in range(4))
    assert next(results) is None
    with pytest.warns(UserWarning, match="tasks which were still being processed|early"):
        results.close()
    assert Parallel()(delayed(square)(k) for k in range(4)) == [0, 1, 4, 9]


def test_two_calls_at_once():
    results = Parallel(return_as="generator")(delayed(square)(k) for k in range(50))
    assert Parallel()(delayed(square)(k) for k in range(9)) == [k * k for k in range(9)]
    assert list(results) == [k * k for k in range(50)]
    found = {}
    threads = [
        threading.Thread(
            target=lambda n=n: found.update(
                {n: Parallel(n_jobs=2, backend="parwise")(delayed(square)(k) for k in range(n))}
            )
        )
        for n in (20, 30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [k * k for k in range(n)] for n in (20, 30)}


def test_exceptions():
    for _ in range(2):
        with pytest.raises(LookupError, match="7") as caught:
            Parallel()(delayed(fails_at_7)(k) for k in range(100))
        assert "in fails_at_7" in str(caught.value.__cause__)
    with Parallel() as parallel:
        for at in (0, 7, 40):
            with pytest.raises(LookupError):
                parallel(delayed(fails_at_7)(k + 7 - at) for k in range(100))
            assert parallel(delayed(square)(k) for k in range(4)) == [0, 1, 4, 9]
    with pytest.raises(ZeroDivisionError):  # of the tasks' own source
        Parallel()(delayed(square)(1 // (5 - k)) for k in range(100))
    with pytest.raises(SystemExit):
        Parallel()(delayed(lambda: raise_(SystemExit(3)))() for k in range(2))


def raise_(error):
    raise error


@pytest.mark.parametrize("at", [0, 1, 50, 199])
def test_what_cannot_be_sent_is_an_error_and_no_endless_wait(at):
    """Also in a task that a callback submits."""
    lock = threading.Lock()
    calls = (delayed(repr)(lock if k == at else k) for k in range(200))
    with pytest.raises((TypeError, RuntimeError), match="lock"):
        Parallel(batch_size=1)(calls)
    with pytest.raises((TypeError, RuntimeError), match="lock"):
        Parallel()(delayed(lambda k: lock if k == at else k)(k) for k in range(200))


@pytest.mark.parametrize("at", [0, 30, 99])
def test_a_worker_that_dies(at):
    with Parallel() as parallel:
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            parallel(delayed(lambda k: k == at and os.kill(os.getpid(), signal.SIGKILL))(k) for k in range(100))
        assert parallel(delayed(square)(k) for k in range(4)) == [0, 1, 4, 9]
    assert Parallel()(delayed(square)(k) for k in range(4)) == [0, 1, 4, 9]


def test_timeout_ends_the_calls():
    with pytest.raises((TimeoutError, multiprocessing.TimeoutError)):
        Parallel(timeout=0.2)(delayed(time.sleep)(60) for _ in range(2))
    assert Parallel(timeout=60)(delayed(square)(k) for k in range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize(
    "how", [{}, {"n_jobs": 2}, {"n_jobs": 2, "backend": "parwise"}, {"n_jobs": -1, "prefer": "threads"}]
)
def test_nested_calls_stay_in_their_worker(how):
    def outer(k):
        return os.getpid(), Parallel(**how)(delayed(lambda i: (os.getpid(), i * k))(i) for i in range(5))

    for k, (outside, inside) in enumerate(Parallel()(delayed(outer)(k) for k in range(6))):
        assert inside == [(outside, i * k) for i in range(5)]


@pytest.mark.parametrize("outer", ["threading", "loky"])
def test_within_another_backend(outer):
    script = f"""
        from joblib import Parallel, delayed
        import parwise.joblib
        def square(x):
            return x * x
        def sums(k):
            import parwise.joblib
            return sum(Parallel(n_jobs=2, backend="parwise")(delayed(square)(i) for i in range(k)))
        print(Parallel(n_jobs=2, backend="{outer}")(delayed(sums)(k) for k in range(5)))
    """
    done = run_script(script)
    assert (done.stdout, done.returncode) == ("[0, 0, 1, 5, 14]\n", 0), done.stderr


def threads_of(_=None):
    return {one.get("user_api"): one["num_threads"] for one in threadpoolctl.threadpool_info()}


def test_threads_of_blas():
    for count in (1, 2):
        with threadpoolctl.threadpool_limits(count):
            assert Parallel()(delayed(threads_of)(k) for k in range(4)) == [threads_of()] * 4
        for backend_ in (joblib.parallel_config, joblib.parallel_backend):
            with backend_("parwise", n_jobs=2, inner_max_num_threads=count):
                assert {one["blas"] for one in Parallel()(delayed(threads_of)(k) for k in range(4))} == {count}
                told = Parallel()(delayed(os.getenv)("NUMEXPR_NUM_THREADS") for _ in range(4))
                assert told == [str(count)] * 4
    assert Parallel()(delayed(os.getenv)("NUMEXPR_NUM_THREADS") for _ in range(4)) == [None] * 4


def prepare(value):
    json.prepared = value


def prepared():
    return getattr(json, "prepared", None)


def test_initializer():
    with joblib.parallel_config("parwise", n_jobs=2, initializer=prepare, initargs=("yes",)):
        for _ in range(2):
            assert set(Parallel()(delayed(prepared)() for _ in range(9))) == {"yes"}
    assert set(Parallel()(delayed(prepared)() for _ in range(9))) == {None}
    values = np.zeros(2)
    with joblib.parallel_config("parwise", n_jobs=2, initializer=prepare, initargs=(values,)):
        for _ in range(3):  # the same object, changed
            values += 1
            assert [one.tolist() for one in Parallel()(delayed(prepared)() for _ in range(4))] == [values.tolist()] * 4
    with pytest.raises(TypeError, match="idle_worker_timeout"):
        joblib.parallel_config("parwise", idle_worker_timeout=3)


def test_workers_follow_the_state_of_this_process(monkeypatch, tmp_path):
    """Also those that are kept."""
    for folder in (tmp_path, tmp_path.parent):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("WHERE", str(folder))
        got = Parallel()(delayed(lambda: (os.getcwd(), os.environ["WHERE"]))() for _ in range(4))
        assert got == [(str(folder), str(folder))] * 4


@pytest.mark.parametrize("how", [{}, {"batch_size": 1}, {"return_as": "generator"}])
def test_all_calls_have_the_state_of_the_calling_thread(how):
    """Also those that joblib takes from their iterator in a callback, and this iterator."""

    def state():
        return decimal.Decimal(1) / 3, np.geterr()["divide"]

    with decimal.localcontext() as context, np.errstate(divide="raise"):
        context.prec = 3
        want = state()
        found = Parallel(**how)(delayed(lambda here: (here, state()))(state()) for _ in range(60))
    assert list(found) == [(want, want)] * 60
    assert want == (decimal.Decimal("0.333"), "raise")


def test_calls_submitted_while_a_mapped_function_runs_here_are_no_part_of_it():
    def pids():
        yield from Parallel(return_as="generator", batch_size=1)(delayed(pid_of)() for _ in range(50))

    found = parallel_map(lambda pid: (time.sleep(0.005), pid)[1], pids(), executor="serial")
    assert len(found) == 50
    assert here not in found


def test_interrupt(tmp_path):
    """Ctrl-C ends the call and its workers; the next call is right."""
    script = f"""
        import contextlib, os, signal, threading, time
        from pathlib import Path
        from joblib import Parallel, delayed
        import parwise.joblib
        folder = Path({str(tmp_path)!r})
        def slow(k):
            (folder / str(os.getpid())).touch()
            time.sleep(60)
        def interrupt():
            while len(list(folder.iterdir())) < 2:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            Parallel(n_jobs=2, backend="parwise")(delayed(slow)(k) for k in range(8))
        except KeyboardInterrupt:
            print("interrupted")
        thread.join()
        for one in folder.iterdir():
            with contextlib.suppress(OSError):
                while Path("/proc", one.name, "stat").read_text().split()[2] not in "ZX":
                    time.sleep(0.01)
        print(Parallel(n_jobs=2, backend="parwise")(delayed(abs)(k) for k in range(4)))
    """
    done = run_script(script)
    assert (done.stdout, done.returncode) == ("interrupted\n[0, 1, 2, 3]\n", 0), done.stderr


def test_functions_and_classes_of_a_script():
    script = """
        from dataclasses import dataclass
        from joblib import Parallel, delayed
        import parwise.joblib
        @dataclass
        class Fit:
            x: int
        def fit(x):
            return Fit(x)
        got = Parallel(n_jobs=2, backend="parwise")(delayed(fit)(k) for k in range(20))
        print(got == [Fit(k) for k in range(20)])
    """
    done = run_script(script)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_scikit_learn():
    pytest.importorskip("sklearn")
    script = """
        import joblib
        import parwise.joblib
        from sklearn.datasets import make_classification
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
        from sklearn.model_selection import GridSearchCV, cross_val_score
        from sklearn.svm import SVC
        X, y = make_classification(300, 12, random_state=0)
        def everything(n):
            search = GridSearchCV(SVC(), {"C": [0.1, 1, 10]}, n_jobs=n).fit(X, y)
            forest = RandomForestClassifier(20, random_state=0, n_jobs=n).fit(X, y).set_params(n_jobs=1)
            scores = cross_val_score(HistGradientBoostingClassifier(max_iter=5, random_state=0), X, y, n_jobs=n)
            nested = GridSearchCV(RandomForestClassifier(5, random_state=0, n_jobs=n), {"max_depth": [2, 4]}, n_jobs=n)
            return [
                search.cv_results_["mean_test_score"].tobytes(),
                forest.predict_proba(X).tobytes(),
                scores.tobytes(),
                nested.fit(X, y).cv_results_["mean_test_score"].tobytes(),
            ]
        want = everything(1)
        with joblib.parallel_config(backend="parwise"):
            print(everything(2) == want)
    """
    done = run_script(script)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("workers", "joblib's backend 'parwise' takes no workers=, .*joblib.Parallel has n_jobs="),
        ("inner_max_num_thread", "did you mean 'inner_max_num_threads'"),
        ("mp_context", "leave it out: all workers start in the same way"),
    ],
)
def test_arguments_that_the_backend_lacks(name, text):
    with pytest.raises(TypeError, match=text), joblib.parallel_config(backend="parwise", **{name: 2}):
        raise AssertionError("not reached")
