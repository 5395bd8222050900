"""Calls from the cells of a notebook, in a real Jupyter kernel."""

from __future__ import annotations

import os
import queue
import re
import select
import signal
import time
from pathlib import Path

import pytest

import parwise

from .conftest import made

manager = pytest.importorskip("jupyter_client.manager")
pytest.importorskip("ipykernel")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

TIMEOUT = 60
PATHS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")


class Cell:
    """One cell that has run: its output, the data that it displays, and its error."""

    def __init__(self):
        self.stdout = self.stderr = ""
        self.shown = {}
        self.error = None

    def take(self, message):
        content = message["content"]
        match message["msg_type"]:
            case "stream":
                setattr(self, content["name"], getattr(self, content["name"]) + content["text"])
            case "execute_result" | "display_data":
                self.shown.update(content["data"])
            case "error":
                self.error = content["ename"]

    @property
    def value(self):
        """The text of the last expression; the cell must have raised and printed nothing."""
        assert (self.error, self.stderr) == (None, "")
        return self.shown["text/plain"]


class Notebook:
    """Cells, run one after another in a kernel."""

    def __init__(self, kernel, client, folder):
        self.kernel = kernel
        self._client = client
        self._folder = folder

    def run(self, code, listen=lambda cell: None):
        """Run a cell, and call `listen` after each message from it."""
        cell = Cell()
        mine = self._client.execute(code, allow_stdin=False)
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=TIMEOUT)
            except queue.Empty:
                pytest.fail(f"no word from the kernel after {vars(cell)}; it is at\n{self._stacks()}")
            if message["parent_header"].get("msg_id") != mine:
                continue
            if message["content"].get("execution_state") == "idle":
                self._client.get_shell_msg(timeout=TIMEOUT)
                return cell
            cell.take(message)
            listen(cell)

    def _stacks(self):
        """Where the kernel's threads are."""
        path = self._folder / STACKS
        if not path.exists():
            return "its beginning"
        os.kill(self.kernel.provisioner.pid, signal.SIGUSR1)
        time.sleep(2)  # nothing tells that all have been written
        return path.read_text()

    def complete(self, code):
        """What the kernel offers for the end of the code, as the key TAB asks for it."""
        return self._client.complete(code, reply=True, timeout=TIMEOUT)["content"]["matches"]

    def restart(self):
        """Kill the kernel and start another one."""
        self.kernel.restart_kernel(now=True)
        self._client.wait_for_ready(timeout=TIMEOUT)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    made.append("kernel")
    folder = tmp_path_factory.mktemp("jupyter")
    before = {name: os.environ.get(name) for name in PATHS}
    path = os.pathsep.join([str(Path(parwise.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    os.environ.update(dict.fromkeys(PATHS, str(folder)))
    # No name is looked up, and no port opened.
    kernel = manager.KernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "kernel"))
    try:
        kernel.start_kernel(env={**os.environ, "PYTHONPATH": path}, cwd=str(folder))
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    client = kernel.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT)
        yield Notebook(kernel, client, folder)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
        kernel.context.destroy(linger=0)
        client.context.destroy(linger=0)  # jupyter-client 8.0 makes one of its own


@pytest.fixture
def cells(notebook):
    """The notebook after its first cell; its option `both` makes workers compute every element."""
    assert notebook.run(BEGINNING).error is None
    return notebook


# The kernel itself warns when it completes.
NAMES = """
import warnings
warnings.simplefilter("ignore")
import xarray as xr
import parwise, parwise.xarray
from parwise import parallel_apply, parallel_map
labelled = xr.DataArray([1.0], dims="x")
"""

STACKS = "stacks.txt"
BEGINNING = f"""
import faulthandler, os, signal, time, warnings
import numpy as np
import parwise
from parwise import parallel_apply, parallel_map

warnings.simplefilter("error")
faulthandler.register(signal.SIGUSR1, stacks := open("{STACKS}", "w"))
both = dict(workers=2, isolate=True)
"""


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("parallel_apply(x, arr, wor", "workers="),
        ("parallel_map(x, items, star", "starmap="),
        ("parwise.parallel_imap(x, items, orde", "ordered="),
        ("parwise.parallel(prog", "progress="),
        ("with parwise.options(err", "errors="),
        ("pool = parwise.Pool(final", "finalizer="),
        ("parwise.vectorize(f, verif", "verify="),
        ("labelled.par.map(f, 'x', retr", "retries="),
        ("labelled.par.map_groups(f, 'x', time", "timeout="),
    ],
)
def test_options_are_completed(notebook, code, found):
    pytest.importorskip("xarray")
    assert notebook.run(NAMES).error is None
    assert found in notebook.complete(code)


def test_a_lambda(cells):
    assert cells.run("parallel_apply(lambda x: x * 2, np.arange(4), **both).tolist()").value == "[0, 2, 4, 6]"
    assert cells.run("parallel_apply(lambda x: x * 2, np.arange(4)).tolist()").value == "[0, 2, 4, 6]"


def test_a_function_that_is_defined_again(cells):
    """The newest definition counts, also of functions that it calls and of classes."""
    call = "parallel_map(f, range(3), **both)"
    cells.run("def g(x):\n    return x + 1\ndef f(x):\n    return g(x), os.getpid()")
    first = cells.run(f"[x for x, _ in {call}]")
    assert first.value == "[1, 2, 3]"
    cells.run("def g(x):\n    return x - 1")
    assert cells.run(f"[x for x, _ in {call}]").value == "[-1, 0, 1]"
    cells.run("def f(x):\n    return g(x) * 10, os.getpid()")
    assert cells.run(f"[x for x, _ in {call}]").value == "[-10, 0, 10]"
    assert cells.run(f"os.getpid() in [pid for _, pid in {call}]").value == "False"
    cells.run("class P:\n    y = 1\ndef f(x):\n    return isinstance(p, P), p.y\np = P()")
    assert cells.run(call).value == "[(True, 1), (True, 1), (True, 1)]"
    cells.run("class P:\n    y = 2\np = P()")
    assert cells.run(call).value == "[(True, 2), (True, 2), (True, 2)]"


def test_a_class_that_is_defined_again(cells):
    """Results are of the class that made them; the new one counts for new ones; neither loses its state."""
    cells.run(
        "import dataclasses, pickle\n@dataclasses.dataclass(slots=True)\nclass P:\n    x: int\n"
        "class Kept:\n    count = 0\n    def __init__(self): self.x = 1\nold = P"
    )
    cells.run("def f(k):\n    return pickle.loads(pickle.dumps(P(k))), Kept()")
    cells.run("for p, kept in parallel_map(f, range(5), **both):\n    Kept.count += type(p) is P")
    assert cells.run("Kept.count").value == "5"
    cells.run("items = [P(1), Kept()]\nclass P:\n    def __init__(self, k): self.k = k\nitems.append(P(2))")
    got = "[type(one) for one in parallel_map(lambda one: one, items, **both)] == [old, Kept, P]"
    assert cells.run(got).value == "True"
    assert cells.run("{type(p) for p, _ in parallel_map(f, range(5), **both)} == {P}").value == "True"
    assert cells.run("Kept.count").value == "5"


@pytest.mark.parametrize("options", ["**both", "workers=2", "workers=1", "executor='threads', workers=2"])
def test_print_comes_to_the_cell(cells, options):
    cell = cells.run(f"done = parallel_map(lambda x: print(f'item {{x}}\\n', end=''), range(20), {options})")
    assert (cell.error, cell.stderr) == (None, "")
    lines = cell.stdout.splitlines()
    assert sorted(lines) == sorted(f"item {k}" for k in range(20))
    if "threads" not in options:
        assert lines == [f"item {k}" for k in range(20)]


def test_print_comes_while_the_call_is_at_work(cells, tmp_path):
    """The second element waits until the first one's text has arrived in this process."""
    gate = tmp_path / "gate"

    def open_gate(cell):
        if "first" in cell.stdout:
            gate.touch()

    code = f"""
    def f(x):
        if x == 0:
            print("first", flush=True)
            return x
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)
        return x
    parallel_map(f, range(2), **both)
    """
    assert cells.run(code, open_gate).value == "[0, 1]"


@pytest.mark.parametrize(
    "executor",
    [
        *(f"ProcessPoolExecutor(2, multiprocessing.get_context('{how}'))" for how in ("spawn", "fork", "forkserver")),
        "loky.ProcessPoolExecutor(2)",
    ],
)
def test_an_executor_of_others(cells, executor):
    """Its processes know none of the cells."""
    cells.run("import multiprocessing\nfrom concurrent.futures import ProcessPoolExecutor")
    if "loky" in executor:
        pytest.importorskip("joblib")
        cells.run("from joblib.externals import loky")
    cells.run("class P:\n    def __init__(self, x): self.x = x\nclass Fault(Exception):\n    pass")
    cells.run("def g(x):\n    return x + 1\ndef f(x):\n    return P(g(x)), os.getpid()")
    call = f"with {executor} as executor:\n    found = parallel_map(f, range(60), executor=executor, verify=False)"
    assert cells.run(call).error is None
    assert (
        cells.run("[p.x for p, _ in found] == list(range(1, 61)) and {type(p) for p, _ in found} == {P}").value
        == "True"
    )
    assert cells.run("len({pid for _, pid in found} - {os.getpid()}) > 0").value == "True"
    cells.run("def f(x):\n    if x > 40:\n        raise Fault(x)\n    return x")
    assert cells.run(call).error == "Fault"


def test_an_error_is_shown(cells):
    cell = cells.run("def f(x):\n    raise KeyError(x)\nparallel_map(f, range(9), **both)")
    assert cell.error == "KeyError"
    assert cells.run("parallel_map(str, range(2), **both)").value == "['0', '1']"


@pytest.mark.parametrize("options", ["**both", "workers=1"])
def test_a_bar(cells, options):
    """Without ipywidgets the bar is text, and no warning says so."""
    pytest.importorskip("tqdm")
    cells.run("warnings.simplefilter('always')")
    cell = cells.run(f"def f(x):\n    return x\nsum(parallel_map(f, range(50), progress=True, {options}))")
    assert cell.error is None
    # With ipywidgets the last thing that is displayed is the result as well.
    assert cell.shown["text/plain"] == "1225"
    try:
        import ipywidgets  # noqa: F401 - whether it is there
    except ImportError:
        assert "f: 100%|" in cell.stderr
        assert "| 50/50 [" in cell.stderr
        assert "Warning" not in cell.stderr


def test_interrupt(cells, tmp_path):
    """The interrupt button raises KeyboardInterrupt in that cell, leaves no worker, and the next call is right."""

    pressed = []

    def press(cell):
        if not pressed and "here" in cell.stdout:
            pressed.append(True)
            cells.kernel.interrupt_kernel()

    for options in ("**both", "workers=2", "workers=1", "executor='threads', workers=2"):
        pressed.clear()
        code = f"""
        def f(x):
            print("here", os.getpid(), flush=True)
            time.sleep({1 if "threads" in options else 600})
        parallel_map(f, range(4), {options})
        """
        cell = cells.run(code, press)
        assert cell.error == "KeyboardInterrupt", options
        assert pressed
        pids = {int(pid) for pid in re.findall(r"here (\d+)", cell.stdout)}
        kernel = int(cells.run("os.getpid()").value)
        alive = [pid for pid in pids - {kernel} if "Z" not in state(pid)]
        assert alive == []
        assert cells.run("parallel_map(lambda x: x + 1, range(4), **both)").value == "[1, 2, 3, 4]"


def state(pid):
    """Return a process's state as one letter; "Z" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_a_report_is_shown_as_html(cells):
    cell = cells.run("with parwise.report() as r:\n    parallel_apply(np.sin, np.arange(40.0), **both)\nr")
    assert cell.error is None
    assert "sin: 40 elements in" in cell.shown["text/html"]
    assert "<svg" in cell.shown["text/html"]
    assert cell.shown["text/plain"] == "<parwise report of 1 call(s)>"


def test_the_kernel_leaves_no_worker_when_it_is_killed(cells):
    """A restart kills the kernel by SIGKILL."""
    pids = cells.run("[os.getpid(), *parallel_map(lambda x: os.getpid(), range(20), **both)]").value
    _, *workers = {int(pid): None for pid in re.findall(r"\d+", pids)}
    assert workers
    fds = [os.pidfd_open(pid) for pid in workers]
    cells.restart()
    for fd in fds:
        assert select.select([fd], [], [], TIMEOUT)[0], "a worker outlived its kernel"
        os.close(fd)
    assert cells.run(BEGINNING).error is None
    assert cells.run("parallel_map(lambda x: x + 1, range(3), **both)").value == "[1, 2, 3]"
