"""Settings of libraries in workers are those of the caller, whenever the libraries are imported there."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import time
import types

import numpy as np
import pytest

from parwise import Pool, parallel_apply, parallel_map
from parwise._system import late_imports, library_settings
from parwise._system.library_settings import LibraryFollower, read_library_settings

from ..support.functions import ISOLATED
from ..support.scripts import run_script

pandas = pytest.importorskip("pandas")
xarray = pytest.importorskip("xarray")
matplotlib = pytest.importorskip("matplotlib")
style = pytest.importorskip("matplotlib.style")


def see(k=0):
    """Libraries are imported by the function itself."""
    import matplotlib
    import pandas
    import xarray

    formatter = pandas.get_option("display.float_format")
    return (
        matplotlib.rcParams["lines.linewidth"],
        str(matplotlib.rcParams["axes.prop_cycle"]),
        pandas.get_option("display.max_rows"),
        formatter and formatter(0.5),
        xarray.get_options()["keep_attrs"],
    )


WAYS = {
    "isolated": lambda pool: parallel_map(see, range(4), **ISOLATED),
    "arrays": lambda pool: [parallel_apply(lambda x: str(see()), np.zeros(4), **ISOLATED)[0]],
    "submit": lambda pool: [pool.submit(see).result() for _ in range(2)],
    "imap": lambda pool: list(pool.imap(see, range(4), isolate=True)),
}


@pytest.mark.parametrize("way", WAYS)
def test_settings_are_followed(way, pool):
    def assert_followed():
        assert {str(one) for one in WAYS[way](pool)} == {str(see())}

    assert_followed()
    with (
        matplotlib.rc_context({"lines.linewidth": 7}),
        pandas.option_context("display.max_rows", 5, "display.float_format", lambda x: f"<{x}>"),
        xarray.set_options(keep_attrs=True),
    ):
        style.use("ggplot")
        assert_followed()
        matplotlib.rcParams["lines.linewidth"] = 8
        assert_followed()
    assert_followed()


def test_settings_that_an_initializer_has_made():
    def prepare():
        matplotlib.rcParams["lines.linewidth"] = 11
        pandas.set_option("display.max_rows", 3)
        xarray.set_options(keep_attrs=False)

    with pandas.option_context("display.max_rows", 5), Pool(2, initializer=prepare) as pool:
        assert [(one[0], one[2], one[4]) for one in pool.map(see, range(2))] == [(11, 3, False)] * 2
        with pandas.option_context("display.max_rows", 6), xarray.set_options(keep_attrs=True):
            found = parallel_map(see, range(2), executor=pool)
            assert [(one[0], one[2], one[4]) for one in found] == [(11, 6, True)] * 2


def test_backend_that_draws_files_is_followed():
    """Another one stays here: it may open windows."""
    done = run_script(
        """
        import matplotlib
        from parwise import parallel_map

        def backend(k):
            import matplotlib.pyplot
            return matplotlib.get_backend().lower()

        for name in ("svg", "agg"):
            matplotlib.use(name)
            print(set(parallel_map(backend, range(3), isolate=True, workers=2)))
        """
    )
    assert done.stdout.splitlines() == ["{'svg'}", "{'agg'}"], done.stderr


def test_saved_figures(tmp_path):
    """A worker's file has the bytes of this process's own."""
    done = run_script(
        """
        import matplotlib
        from matplotlib.figure import Figure
        from parwise import parallel_map

        def draw(k, name):
            figure = Figure(figsize=(1, 1))
            figure.subplots().plot([0, 1])
            figure.savefig(f"{name}{k}.png", metadata={"Software": None})

        matplotlib.rcParams.update({"lines.linewidth": 9, "figure.facecolor": "red"})
        draw(0, "here")
        parallel_map(draw, range(2), args=("there",), isolate=True, workers=2)
        """,
        cwd=tmp_path,
    )
    assert not done.returncode, done.stderr
    assert (tmp_path / "there0.png").read_bytes() == (tmp_path / "here0.png").read_bytes()


# With libraries that need not be installed.


@pytest.fixture
def imported(monkeypatch):
    """Put a library in the place of an imported module."""

    def put(name, **content):
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        library_settings._known.pop(name, None)
        return module

    yield put
    for name in ("sklearn", "torch"):
        library_settings._known.pop(name, None)


def make_sklearn(imported):
    import threading

    local = threading.local()

    def config():
        return vars(local).setdefault("config", {"assume_finite": False, "working_memory": 1})

    return imported("sklearn", get_config=lambda: dict(config()), set_config=lambda **given: config().update(given))


def test_settings_of_a_thread(imported):
    sklearn = make_sklearn(imported)
    sklearn.set_config(assume_finite=True)

    def see(k):
        time.sleep(0.001)
        return sklearn.get_config()["assume_finite"]

    assert parallel_map(see, range(20), executor="threads", workers=3) == [True] * 20
    local = library_settings.read_local_settings()
    assert local["sklearn"]["assume_finite"] is True


def test_follower(imported):
    """Settings come and go; those of the process itself return."""
    values = {"dtype": "float32", "deterministic": False, "precision": "highest"}

    def setter(name):
        return lambda value: values.update({name: value})

    torch = imported(
        "torch",
        get_default_dtype=lambda: values["dtype"],
        set_default_dtype=setter("dtype"),
        are_deterministic_algorithms_enabled=lambda: values["deterministic"],
        use_deterministic_algorithms=setter("deterministic"),
        get_float32_matmul_precision=lambda: values["precision"],
        set_float32_matmul_precision=setter("precision"),
    )
    follower, before = LibraryFollower(), dict(values)
    torch.set_default_dtype("float64")
    told = {"torch": read_library_settings(pickle.dumps)["torch"]}
    values.update(before)
    follower.follow(told)
    assert values["dtype"] == "float64"
    values["precision"] = "medium"  # set by an initializer
    follower.follow(dict(told))
    assert values == {"dtype": "float64", "deterministic": False, "precision": "medium"}


@pytest.mark.parametrize("executor", ["processes", "threads"])
def test_half_imported_library_is_left_alone(imported, executor):
    imported("torch")
    imported("sklearn")  # each thread has settings of its own
    assert not {"torch", "sklearn"} & set(read_library_settings(pickle.dumps))
    done = parallel_map(lambda k: (time.sleep(0.002), k)[1], range(40), executor=executor, workers=2)
    assert done == list(range(40))


def test_when_imported(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    late_imports.when_imported("imported_late", lambda: seen.append(sys.modules["imported_late"].value))
    try:
        assert importlib.util.find_spec("imported_late") is not None
        assert not seen
        import imported_late

        assert seen == [1]
        assert (
            type(imported_late.__loader__).__name__
            == type(imported_late.__spec__.loader).__name__
            == "SourceFileLoader"
        )
        late_imports.when_imported("imported_late", lambda: seen.append(2))
        assert seen == [1, 2]
        late_imports.when_imported("no_such_module", lambda: None)
        with pytest.raises(ImportError):
            importlib.import_module("no_such_module")
    finally:
        sys.modules.pop("imported_late", None)
        late_imports._actions.clear()
        sys.meta_path.remove(late_imports._finder)
