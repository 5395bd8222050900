"""The house rules that a machine can hold."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import parwise

PACKAGE = Path(parwise.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: A file imports from lower floors only.
FLOORS = [
    {
        "errors",
        "_checks",
        "_cgroup",
        "_split",
        "_layout",
        "_segment",
        "_floats",
        "_hostile",
        "_mark",
        "_namespace",
        "_turns",
    },
    {"_environment", "_pickler", "_said", "_interrupt", "_results"},
    {"_progress"},
    {"_ear", "_transcript", "_cpu", "_memory", "_payload", "_channel", "_verify"},
    {"_blas", "_options", "_halo", "_random"},
    {"_fingerprint"},
    {"_input", "_items"},
    {"_call", "_kernel"},
    {"_checked", "_gaps", "_parcel", "_invariance", "_collect", "_record"},
    {"_plan", "_target", "_trial", "_watch"},
    {"_assemble", "_report"},
    {"_worker", "_remote", "_job"},
    {"_zygote", "_link"},
    {"_pool", "_shipment", "_minder", "_losses", "_proof", "_room"},
    {"_shared_pool"},
    {"_crew"},
    {"_company"},
    {"_runners.serial"},
    {"_runners.threads", "_runners.processes"},
    {"_runners.futures"},
    {"_runners"},
    {"_diagnosis"},
    {"_audit"},
    {"_stream", "_orders"},
    {"_desk"},
    {"api", "_binding", "_opening"},
    {"_lists"},
    {"_executor"},
    {"_outputs", "_machine"},
    {"_vectorized", "__main__"},
    {"_numpy"},
    {"_labels", "_sources", "_parts"},
    {"_requests", "_views"},
    {"_combine", "_lazy"},
    {"_labelled", "_lazy_groups"},
    {"_groups", "_windows"},
    {"xarray"},
]


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path):
    """Modules of parwise that a file imports."""
    base = ["parwise", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = base[: len(base) - node.level + 1]
            if node.module:
                yield ".".join([*package, node.module]).removeprefix("parwise.")
            else:
                for alias in node.names:
                    yield ".".join([*package, alias.name]).removeprefix("parwise.")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_down(path):
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    mine = name_of(path)
    if not mine:  # the roof
        return
    for other in imports_of(path):
        other = other if other in floor else other.rpartition(".")[0]
        assert floor[other] < floor[mine] or (mine, other) == ("_runners", "_runners"), f"{mine} imports {other}"


def test_all_is_sorted_and_documented():
    assert parwise.__all__ == sorted(parwise.__all__)
    assert set(parwise.__all__) <= set(dir(parwise))
    with pytest.raises(AttributeError, match="has no attribute 'parallel_aply'"):
        parwise.parallel_aply  # noqa: B018 - the lookup is what is tested
    for name in parwise.__all__:
        assert inspect.getdoc(getattr(parwise, name)), name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            doc = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - len(doc.splitlines())
            assert length <= 60, node.name


def test_import_is_light():
    code = (
        "import sys, json, numpy, cloudpickle, threadpoolctl; before = set(sys.modules); import parwise;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"xarray", "dask", "distributed", "tqdm", "matplotlib", "IPython", "pandas", "scipy", "asyncio"}
    heavy |= {"multiprocessing", "numpy.ma"}
    assert not heavy & set(json.loads(done.stdout))


def test_options_are_documented():
    doc = inspect.getdoc(parwise.Options)
    for name in parwise.Options.__annotations__:
        assert f"\n{name} : " in doc
