"""Rules for packages, imports, and the length of files and functions."""

from __future__ import annotations

import ast
import functools
import graphlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import parwise

PACKAGE = Path(parwise.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

#: Packages, and modules beside them, from the lowest layer to the highest.
LAYERS = [
    {"errors", "_clock"},
    {"_core", "_system"},
    {"_workers", "_report"},
    {"_executors"},
    {"_verify"},
    {"_api"},
    {"_numpy", "_xarray"},
    {"xarray", "joblib", "__main__"},
]
#: Modules for processes, sockets and files, which `_core` does without.
OUTSIDE = {
    "socket",
    "select",
    "selectors",
    "mmap",
    "signal",
    "subprocess",
    "ctypes",
    "multiprocessing",
    "fcntl",
    "tempfile",
}


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


@functools.cache
def nodes_of(path):
    return list(ast.walk(tree_of(path)))


def outside_imports(nodes):
    """First parts of the names of modules that these nodes import, but not those of parwise."""
    for node in nodes:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        yield from (name.partition(".")[0] for name in names)


def imports_of(path):
    """Modules of parwise that a file imports."""
    base = ["parwise", *path.relative_to(PACKAGE).parts[:-1]]
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = base[: len(base) - node.level + 1]
            if node.module:
                yield ".".join([*package, node.module]).removeprefix("parwise.")
            else:
                for alias in node.names:
                    yield ".".join([*package, alias.name]).removeprefix("parwise.")


# Each of these looks at all files, which are read once, and says all that is wrong.


def test_imports_go_down():
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = []
    for path in FILES:
        mine = name_of(path).partition(".")[0]
        if mine:  # `__init__` hands on names from everywhere
            others = {one.partition(".")[0] for one in imports_of(path)} - {mine}
            wrong += [f"{name_of(path)} imports {other}" for other in others if layer[other] >= layer[mine]]
    assert not wrong


def test_no_import_cycle():
    names = {name_of(path) for path in FILES}
    graph = {}
    for path in FILES:
        found = (one if one in names else one.rpartition(".")[0] for one in imports_of(path))
        graph[name_of(path)] = {one for one in found if one}
    graph.pop("")
    graphlib.TopologicalSorter(graph).prepare()


def test_core_knows_no_processes_sockets_or_files():
    core = [path for path in FILES if PACKAGE / "_core" in path.parents]
    assert len(core) > 20
    found = {name_of(path): OUTSIDE.intersection(outside_imports(nodes_of(path))) for path in core}
    assert not {name: modules for name, modules in found.items() if modules}


#: Modules that Windows lacks, or all but Windows.
SOME_SYSTEMS = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "nt", "msvcrt", "winreg"}


def test_parwise_can_be_imported_on_each_system():
    """Modules that only some systems have are imported by a file that is that system's own, or where they are used."""
    others = [path for path in FILES if path.name != "unix.py"]
    found = {name_of(path): SOME_SYSTEMS.intersection(outside_imports(tree_of(path).body)) for path in others}
    assert not {name: modules for name, modules in found.items() if modules}


#: Calls that return a descriptor, most often the lowest free number.
OPENING = {"dup", "dup2", "memfd_create", "pidfd_open", "eventfd", "epoll", "socketpair", "recvmsg", "pipe", "pipe2"}


#: The place, and Windows' part of it.
OPENERS = ("descriptors.py", "windows.py")


def test_descriptors_are_opened_in_one_place():
    """Where none gets a number below 3: C libraries print to these, also if the program has closed them."""
    wrong = []
    for path in FILES:
        calls = [] if path.name in OPENERS else [one for one in nodes_of(path) if isinstance(one, ast.Call)]
        for node in calls:
            if isinstance(node.func, ast.Attribute):
                place = f"{name_of(path)}, line {node.lineno}"
                if node.func.attr in OPENING:
                    wrong.append(f"{place}, {node.func.attr}: see _workers/descriptors.py")
                if node.func.attr == "close" and ast.unparse(node.func) == "os.close":
                    wrong.append(f"{place}: that of gevent closes later: see _system/interpreter.py")
                # It duplicates its descriptor.
                if node.func.attr == "mmap" and ast.unparse(node.func) == "mmap.mmap":
                    wrong += [f"{place}: mmap of a file"] * (ast.unparse(node.args[0]) != "-1")
    assert not wrong


def test_packages_are_small():
    # 14, and two more: a module named after the library with which it registers, as `xarray` is, has no other place,
    # nor has what all layers use.
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 16
    for folder in {path.parent for path in FILES} - {PACKAGE}:
        assert len([path for path in folder.iterdir() if path.name != "__pycache__"]) <= 16, folder.name
        body = ast.parse((folder / "__init__.py").read_text()).body
        assert len(body) == 1, f"{folder.name}/__init__.py holds more than a docstring, which the fork server imports"


def test_page_on_the_architecture_names_every_file():
    page = (Path(__file__).parent.parent / "docs" / "development" / "architecture.md").read_text()
    for folder in {path.parent for path in FILES}:
        start = page.index(f"### `{folder.name}`")
        table = page[start : page.find("\n##", start + 1)]
        for path in folder.glob("*.py"):
            assert f"`{path.name}`" in table or path.name == "__init__.py", path


def test_all_is_sorted_and_documented():
    assert parwise.__all__ == sorted(parwise.__all__)
    assert set(parwise.__all__) <= set(dir(parwise))
    with pytest.raises(AttributeError, match="has no attribute 'parallel_aply'"):
        parwise.parallel_aply  # noqa: B018 - the lookup is what is tested
    for name in parwise.__all__:
        assert inspect.getdoc(getattr(parwise, name)), name


def test_files_and_functions_are_short():
    long = [name_of(path) for path in FILES if len(path.read_text().splitlines()) > 400]
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False) or ""
                if node.end_lineno - node.lineno + 1 - len(doc.splitlines()) > 60:
                    long.append(f"{name_of(path)}.{node.name}")
    assert not long


def test_modules_for_other_libraries_are_imported_on_first_use():
    code = (
        "import sys, parwise; assert not {'xarray', 'joblib'} & set(sys.modules); parwise.xarray.DataArrayMaps;"
        "import xarray; xarray.DataArray([1]).par; parwise.joblib; assert 'joblib' in dir(parwise)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import sys; sys.modules['xarray'] = None; import parwise; assert not hasattr(parwise, 'xarray');"
        "import pydoc; pydoc.render_doc(parwise)\n"
        "try: parwise.xarray\nexcept AttributeError as error: assert 'pip install xarray' in str(error)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light():
    code = (
        "import sys, json, numpy, cloudpickle, threadpoolctl; before = set(sys.modules); import parwise;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"xarray", "dask", "distributed", "tqdm", "matplotlib", "IPython", "pandas", "scipy", "asyncio"}
    heavy |= {"multiprocessing", "numpy.ma", "joblib"}
    assert not heavy & set(json.loads(done.stdout))


def test_options_are_documented():
    doc = inspect.getdoc(parwise.Options)
    for name in parwise.Options.__annotations__:
        assert f"\n{name} : " in doc
