"""Dask: workers come, go and die, the scheduler is killed, data is lost, versions differ; never a hang."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
import warnings

import numpy as np
import pytest

import parwise
from parwise import ExecutorError, WorkerDiedError, parallel_apply, parallel_imap, parallel_map

from .. import conftest
from ..support.dask_cluster import OtherNetwork, ProgramCluster
from ..support.oracle import assert_same

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning"
)  # of Dask, whose sockets are closed by a dead program


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A scheduler alone; what dies once with an element is lost."""
    conftest.made.append("dask")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    cluster = ProgramCluster(tmp_path)
    yield cluster
    cluster.close()


@pytest.fixture
def client(cluster):
    with distributed.Client(scheduler_file=cluster.file) as client:
        yield client


@pytest.fixture
def gate(gate):
    """A gate that opens after a while, where a fault would else have a test wait for ever."""
    timer = threading.Timer(20, gate.open)
    timer.start()
    yield gate
    timer.cancel()
    timer.join()


def start(cluster, client, count):
    for _ in range(count):
        cluster.add_worker()
    client.wait_for_workers(count)


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


# Workers that come and go


def span_of(seconds):
    begin = time.time()
    time.sleep(seconds)
    return begin, time.time()


def test_workers_that_join_are_used(cluster, client):
    """All of their threads: those of the worker that was there first have six tasks at hand."""
    start(cluster, client, 1)
    results = parallel_imap(span_of, [0.1] * 20_000, executor=client, isolate=True)  # to start a worker takes seconds
    spans, most = [next(results)], 0
    cluster.add_worker("--nthreads", "8")
    for one in results:
        spans = [*spans[-40:], one]
        most = max(sum(begin <= one[0] < end for begin, end in spans) for one in spans)
        if most == 8:
            break
    assert most >= 8


@pytest.fixture
def local():
    """A cluster of one worker that may start others."""
    conftest.made.append("dask")
    environ = dict(os.environ)
    with (
        dask.config.set({"distributed.scheduler.unknown-task-duration": "50 ms"}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1"
        ) as cluster,
    ):
        yield cluster
    os.environ.clear()  # the cluster leaves thread settings for its workers there
    os.environ.update(environ)


def test_a_cluster_grows_with_its_work(local, tmp_path):
    """It starts workers for what waits in the scheduler: two seconds of work for each."""

    def note_process(k):
        (tmp_path / str(os.getpid())).touch()
        if len(os.listdir(tmp_path)) < 3:  # to start a worker takes one second, or five
            time.sleep(0.02)

    with distributed.Client(local) as client:
        local.adapt(minimum=1, maximum=3, interval="50 ms", target_duration="2 s")
        parallel_map(note_process, range(3000), executor=client, isolate=True)
    assert len(os.listdir(tmp_path)) == 3


def test_fewer_workers_than_there_are(dask_client):
    def span(k):
        begin = time.time()
        time.sleep(0.02)
        return begin, time.time()

    spans = sorted(parallel_map(span, range(12), executor=dask_client, workers=1, isolate=True))
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


def test_a_worker_that_dies_costs_its_element(cluster, client):
    def end_at_200(k):
        if k == 200:
            os._exit(1)
        return float(k)

    start(cluster, client, 4)
    with pytest.raises(WorkerDiedError, match="a worker process of Dask died") as caught:
        parallel_map(end_at_200, range(300), executor=client)
    assert caught.value.index <= 200
    with pytest.warns(RuntimeWarning, match="1 of 300"):
        found = parallel_map(end_at_200, range(300), executor=client, errors="ignore")
    assert found == [*map(float, range(200)), None, *map(float, range(201, 300))]


def test_data_that_dies_with_its_worker_is_sent_again(cluster, client, tmp_path):
    large, (begun, go) = np.random.default_rng(0).random(10**5), (tmp_path / "begun", tmp_path / "go")

    def total(k, large):
        if k == 1:
            begun.touch()
            while not go.exists():
                time.sleep(0.01)
        return k + large.sum()

    def replace_worker():
        while not begun.exists():
            time.sleep(0.01)
        cluster.workers[0].kill()
        go.touch()
        cluster.add_worker()

    start(cluster, client, 1)
    thread = threading.Thread(target=replace_worker)
    thread.start()
    try:
        # The task itself is sent anew too, since it has lost an argument and no worker alone.
        client.run_on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", 5))
        assert parallel_map(total, range(4), args=(large,), executor=client) == [k + large.sum() for k in range(4)]
    finally:
        go.touch()
        thread.join()


@pytest.fixture
def network():
    conftest.made.append("dask")
    if not (os.geteuid() == 0 and shutil.which("ip") and shutil.which("nsenter") and shutil.which("unshare")):
        pytest.skip("only root can make network namespaces, with the programs ip, nsenter and unshare")
    network = OtherNetwork()
    try:
        network.connect()
    except (OSError, subprocess.CalledProcessError) as error:
        network.close()
        pytest.skip(f"this machine does not allow network namespaces ({error})")
    yield network
    network.close()


def test_a_worker_that_is_cut_off_for_a_while(network, tmp_path):
    cluster = ProgramCluster(tmp_path, network.here)
    try:
        with distributed.Client(scheduler_file=cluster.file) as client:
            cluster.add_worker("--host", network.there, within=network.within)
            cluster.add_worker()
            client.wait_for_workers(2)
            rows = np.random.default_rng(0).random((60, 1000))
            results = parallel_imap(lambda row: (time.sleep(0.05), np.sort(row))[1], rows, executor=client)
            found = [next(results)]
            network.plug("down")
            time.sleep(1)  # the fault itself: what it has computed meanwhile cannot come back
            network.plug("up")
            assert_same(np.asarray([*found, *results]), np.sort(rows))
    finally:
        cluster.close()


# Errors and Ctrl-C


@pytest.mark.parametrize("name", ["dask_client", "process_executor"])
def test_an_error_does_not_wait_for_what_lies_behind_it(name, request, gate):
    executor = request.getfixturevalue(name)

    def raise_at_one(k):
        if k == 1:
            gate.came("2")
            raise ValueError("one")
        if k > 1:
            gate(str(k))
        return k

    with pytest.raises(ValueError, match="one"):
        parallel_map(raise_at_one, range(4), executor=executor)
    assert not gate.open_path.exists()


def test_results_of_later_calls_are_not_cancelled_with_those_of_an_earlier_one(dask_client):
    """Dask gathers the results of several tasks together, also those of two calls."""

    def f(k):
        if k == 5:
            raise ValueError(k)
        return k

    for _ in range(20):
        with pytest.raises(ValueError, match="5"):
            parallel_map(f, range(20), executor=dask_client)
        assert parallel_map(f, range(5), executor=dask_client) == [0, 1, 2, 3, 4]


def test_ctrl_c(dask_client, gate):
    def interrupt():
        gate.came()
        os.kill(os.getpid(), signal.SIGINT)

    def wait(k):
        return gate() if k else k

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        parallel_map(wait, range(4), executor=dask_client)
    thread.join()
    assert not gate.open_path.exists()
    gate.open()
    assert parallel_map(abs, [-1, 2], executor=dask_client) == [1, 2]


def test_a_killed_scheduler(cluster, client):
    start(cluster, client, 1)
    results = parallel_imap(pid_after, [0.01] * 1000, executor=client, isolate=True)
    next(results)
    cluster.scheduler.kill()
    with pytest.raises(
        ExecutorError, match=r"lost the scheduler at tcp://127\.0\.0\.1:\d+; .*; \d+ of 1000 items"
    ) as caught:
        list(results)
    assert caught.value.done < 1000
    assert caught.value.index <= caught.value.done
    with pytest.raises(ExecutorError, match="connect a new Client"):
        parallel_map(abs, range(3), executor=client)


def test_a_result_that_cannot_be_fetched(dask_client, monkeypatch):
    """The connection breaks before the client knows that it has lost its scheduler."""

    async def broken(future):
        raise distributed.comm.CommClosedError("in <TCP (closed) ConnectionPool.gather>: Connection reset by peer")

    monkeypatch.setattr(importlib.import_module("parwise._executors.remote.dask"), "_fetch", broken)
    with pytest.raises(ExecutorError, match="lost the scheduler at"):
        parallel_map(abs, range(3), executor=dask_client, isolate=True)


def test_a_client_that_is_closed(dask_client):
    with distributed.Client(dask_client.scheduler.address) as client:
        results = parallel_imap(pid_after, [0.01] * 1000, executor=client, isolate=True)
        next(results)
        client.close()
        with pytest.raises(ExecutorError, match=r"closed during the call; .*; \d+ of 1000 items done"):
            list(results)
        with pytest.raises(ExecutorError, match="the Dask client is closed"):
            parallel_map(abs, range(3), executor=client)
    executor = dask_client.get_executor()
    executor.shutdown()
    with pytest.raises(ExecutorError, match=r"shut down; .*get_executor\(\)"):
        parallel_map(abs, range(3), executor=executor)


def test_tasks_that_somebody_else_cancels(dask_client, gate):
    def cancel():
        gate.came()
        dask_client.cancel([distributed.Future(key, dask_client) for key in list(dask_client.futures)])

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(ExecutorError, match=r"were cancelled .*; 1 of 4 items done"):
        parallel_map(lambda k: gate() if k else k, range(4), executor=dask_client)
    thread.join()


def test_a_scheduler_without_workers_is_told(cluster, client, monkeypatch):
    monkeypatch.setattr(importlib.import_module("parwise._executors.remote.dask"), "WAIT_SECONDS", 1.5)
    thread = threading.Thread(target=lambda: (time.sleep(3), cluster.add_worker()))
    thread.start()
    with pytest.warns(RuntimeWarning, match="has no workers"):
        assert parallel_map(abs, range(-3, 0), executor=client) == [3, 2, 1]
    thread.join()


# Other environments

LACKING = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "parwise":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""
OTHER = "import parwise._workers.remote as remote; remote.VERSIONS = {**remote.VERSIONS, 'Python': '3.9'}"
OTHER_NUMPY = "import parwise._workers.remote, numpy; numpy.__version__ = '2.0.99'"


def test_workers_of_another_environment(cluster, client, tmp_path):
    places = {}
    for name, text in {"lacking": LACKING, "python": OTHER, "numpy": OTHER_NUMPY}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(text)
        paths = [str(folder), *filter(None, [os.getenv("PYTHONPATH")])]
        cluster.add_worker("--name", name, PYTHONPATH=os.pathsep.join(paths))
    client.wait_for_workers(3)
    for address, one in client.scheduler_info(n_workers=-1)["workers"].items():
        places[one["name"]] = address

    def call(name):
        return parallel_map(abs, range(-5, 0), executor=client.get_executor(workers=[places[name]]))

    with pytest.raises(ExecutorError, match=rf"worker {places['lacking']} of Dask cannot import parwise .*pip install"):
        call("lacking")
    with pytest.raises(ExecutorError, match=r"process .* of Dask runs Python 3\.9 and parwise .*same environment"):
        call("python")
    with pytest.warns(parwise.ReproducibilityWarning, match=r"has NumPy 2\.0\.99"):
        assert call("numpy") == [5, 4, 3, 2, 1]
    assert client.submit(len, "abc", workers=[places["lacking"]]).result() == 3


# Where the call is made


def test_a_call_in_the_thread_of_the_event_loop(dask_client):
    async def call():
        async with distributed.Client(dask_client.scheduler.address, asynchronous=True) as client:
            with pytest.raises(ExecutorError, match=r"await asyncio\.to_thread"):
                parallel_map(abs, range(-3, 0), executor=client)
            large = np.ones(10**5)
            return await asyncio.to_thread(parallel_map, np.dot, [large] * 2, args=(large,), executor=client)

    assert asyncio.run(call()) == [1e5, 1e5]


def test_calls_within_tasks(dask_client):
    def inner(k):
        with distributed.worker_client() if k % 2 else open(os.devnull):
            return sum(parallel_map(lambda x: x + k, range(5), executor=distributed.get_client()))

    assert dask_client.gather(dask_client.map(inner, range(4), pure=False)) == [10, 15, 20, 25]


# What Dask's users expect


def test_options_of_submit(dask_client):
    first, second = dask_client.scheduler_info(n_workers=-1)["workers"]

    def where(k):
        return distributed.get_worker().address

    for one in (first, second):
        executor = dask_client.get_executor(workers=[one], allow_other_workers=False, retries=1)
        assert set(parallel_map(where, range(5), executor=executor, isolate=True)) == {one}
    with pytest.raises(TypeError, match=r"client\.get_executor\(workers="):
        parallel_map(where, range(5), executor=dask_client, workers=[first])


def test_names_of_tasks(dask_client):
    def name_of(x):
        label, indices, _ = distributed.get_worker().get_current_task()
        return f"{label} {indices}"

    names = parallel_apply(name_of, np.zeros((2, 3)), axis=(0, 1), executor=dask_client, isolate=True)
    label = names[0, 0].split()[0]
    assert label.startswith("name_of-parwise-")
    assert names[0, 0] == f"{label} (0, 0)"
    assert all(one.startswith(label) for one in names.flat)


@pytest.mark.parametrize("name", ["dask_client", "process_executor"])
def test_output_comes_in_the_order_of_the_loop(name, request, capsys, caplog):
    executor = request.getfixturevalue(name)

    def tell(k):
        time.sleep(0.02 * (k % 2))
        print("text", k)
        logging.getLogger("parwise_test").warning("record %d", k)
        warnings.warn(f"warning {k}", stacklevel=1)
        return k

    with pytest.warns(UserWarning, match="warning") as caught:
        parallel_map(tell, range(8), executor=executor)
    assert capsys.readouterr().out == "".join(f"text {k}\n" for k in range(8))
    assert [str(one.message) for one in caught] == [f"warning {k}" for k in range(8)]
    records = [one.getMessage() for one in caplog.records if one.name == "parwise_test"]
    assert records == [f"record {k}" for k in range(8)]


def test_large_elements_and_arguments(dask_client, monkeypatch):
    scattered = []
    scatter = distributed.Client.scatter

    def note(self, data, *args, **kwargs):
        scattered.append(data[0].nbytes)
        return scatter(self, data, *args, **kwargs)

    monkeypatch.setattr(distributed.Client, "scatter", note)
    elements = np.random.default_rng(0).random((3, 1_300_000))  # of 10.4 MB: Dask warns of such a call
    assert_same(parallel_apply(np.sort, elements, executor=dask_client), np.sort(elements))
    assert len(scattered) == 3  # the first one for the comparison with the caller's
    scattered.clear()
    large = np.random.default_rng(1).random(10**6)
    found = parallel_map(lambda k, large: large * k, range(5), args=(large,), executor=dask_client)
    assert all(one.tobytes() == (large * k).tobytes() for k, one in enumerate(found))
    assert len(scattered) == 1
    assert scattered[0] > 8 * 10**6
