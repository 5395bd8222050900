"""Modules and names that a new interpreter lacks: they travel by value, or the error has the remedy."""

from __future__ import annotations

import builtins
import dataclasses
import gettext
import importlib.util
import sys
import types
import zipfile
import zipimport

import numpy as np
import pytest

from parwise import Pool, parallel_apply, parallel_map
from parwise._system.modules import is_importable

from ..conftest import RUNNERS
from ..support.functions import ISOLATED
from ..support.scripts import run_script

CODE = """
import dataclasses
FACTOR = 3
@dataclasses.dataclass
class Point:
    x: int
    def twice(self):
        return Point(self.x * 2)
class Refused(Exception):
    pass
def triple(k):
    return k * FACTOR
def f(k):
    return triple(k) + 1
def point(k):
    return Point(k).twice()
def refuse(k):
    raise Refused(k)
"""


def from_path(name, path, register=True):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    if register:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Finder:
    """A finder of the user's own, which workers do not have."""

    path = None

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, cls.path) if name == "parwise_found" else None


def by_hand(name, folder):
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(CODE, vars(module))
    return module


def beside_another(name, folder):
    """Workers would find another module of this name on their path."""
    sys.path.insert(0, str(folder / "other"))
    (folder / "other").mkdir()
    (folder / "other" / f"{name}.py").write_text("def f(k):\n    return 'wrong'\n")
    return from_path(name, folder / "code.py")


def in_a_package(name, folder):
    package = types.ModuleType(name)
    package.__path__ = []
    sys.modules[name] = package
    return from_path(f"{name}.inner", folder / "code.py")


def in_a_zip(name, folder):
    with zipfile.ZipFile(folder / "code.zip", "w") as file:
        file.writestr(f"{name}.py", CODE)
    importer = zipimport.zipimporter(str(folder / "code.zip"))
    spec = importer.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    importer.exec_module(module)
    return module


def by_a_finder(name, folder):
    Finder.path = folder / "code.py"
    sys.meta_path.append(Finder)
    return importlib.import_module("parwise_found")


def from_a_folder_that_left_the_path(name, folder):
    (folder / f"{name}.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    module = importlib.import_module(name)
    sys.path.remove(str(folder))
    return module


def on_the_path(name, folder):
    (folder / f"{name}.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    return importlib.import_module(name)


def in_a_zip_on_the_path(name, folder):
    with zipfile.ZipFile(folder / "code.zip", "w") as file:
        file.writestr(f"{name}.py", CODE)
    sys.path.insert(0, str(folder / "code.zip"))
    return importlib.import_module(name)


FOREIGN = [by_hand, beside_another, in_a_package, in_a_zip, by_a_finder, from_a_folder_that_left_the_path]
FOREIGN += [lambda name, folder: from_path(name, folder / "code.py")]
USUAL = [on_the_path, in_a_zip_on_the_path]


@pytest.fixture(params=FOREIGN + USUAL, ids=lambda make: make.__name__)
def module(request, tmp_path, monkeypatch):
    (tmp_path / "code.py").write_text(CODE)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    before = set(sys.modules)
    name = f"parwise_{abs(hash(str(tmp_path)))}"
    module = request.param(name, tmp_path)
    assert is_importable(module.__name__) == (request.param in USUAL)
    yield module
    for one in set(sys.modules) - before:
        if one.startswith("parwise_"):
            del sys.modules[one]


@pytest.mark.parametrize("way", ["isolated", "processes", "process_executor", "pool"])
def test_functions_and_classes_of_a_module(way, module, request):
    options = RUNNERS[way](request)
    assert parallel_map(module.f, range(6), **options) == [k * 3 + 1 for k in range(6)]
    assert parallel_map(lambda k: module.f(k), range(6), **options) == [k * 3 + 1 for k in range(6)]
    points = parallel_map(module.point, range(6), **options)
    assert points == [module.Point(2 * k) for k in range(6)]
    assert {type(point) for point in points} == {module.Point}
    assert parallel_map(lambda point: point.twice(), points, **options) == [module.Point(4 * k) for k in range(6)]
    with pytest.raises(module.Refused, match="0"):
        parallel_map(module.refuse, range(6), **options)


def test_a_module_without_a_name_in_sys_modules(tmp_path):
    (tmp_path / "code.py").write_text(CODE.replace("@dataclasses.dataclass\n", "").replace("x: int", "x = 1"))
    module = from_path("parwise_unregistered", tmp_path / "code.py", register=False)
    assert parallel_map(module.f, range(4), **ISOLATED) == [1, 4, 7, 10]


def test_modules_of_libraries_travel_by_name():
    import concurrent.futures
    import os.path

    names = [
        "numpy.random",
        "numpy.linalg",
        "os.path",
        "concurrent.futures",
        "parwise._core.kernel",
        "sys",
        "zipimport",
    ]
    assert all(is_importable(name) for name in names)
    assert is_importable(__name__)
    assert parallel_map(lambda x: (concurrent.futures.__name__, os.path.sep, np.sqrt(x)), [4.0], **ISOLATED) == [
        ("concurrent.futures", "/", 2.0)
    ]


def test_names_that_were_put_into_builtins(runner, monkeypatch):
    translations = gettext.NullTranslations()
    translations.gettext = {"yes": "ja"}.get
    monkeypatch.setattr(builtins, "_", translations.gettext, raising=False)
    monkeypatch.setattr(builtins, "scale", 3, raising=False)
    monkeypatch.setattr(builtins, "show", lambda x: f"<{x}>", raising=False)
    monkeypatch.setattr(builtins, "get_shell", (x for x in "cannot be sent"), raising=False)

    def f(k):
        try:
            return show(k * scale), _("yes")
        except NameError:
            return get_shell  # noqa: F821

    assert parallel_map(f, range(4), **runner) == [(f"<{3 * k}>", "ja") for k in range(4)]


def test_what_python_has_itself_is_not_added():
    done = run_script("""
import builtins
from parwise._system.modules import added_builtins
print(sorted(added_builtins(vars(builtins))))
""")
    assert (done.stdout, done.stderr) == ("['False', 'None', 'True', '__debug__']\n", "")


@dataclasses.dataclass
class Cell:
    """A class of a module that workers import."""

    x: int


def area(cell):
    return cell.area()


def name_in_builtins(k):
    return added_name(k)  # noqa: F821


def own_attribute(k):
    return np.attribute_of_this_process


def own_import(k):
    from numpy import attribute_of_this_process

    return attribute_of_this_process


@pytest.mark.parametrize("way", ["isolated", "process_executor", "pool", "submit"])
@pytest.mark.parametrize(
    ("function", "item", "kind"),
    [
        (area, Cell(1), AttributeError),
        (name_in_builtins, 1, NameError),
        (own_attribute, 1, AttributeError),
        (own_import, 1, ImportError),
    ],
)
def test_what_this_process_alone_has_is_an_error_with_the_remedy(way, function, item, kind, request, monkeypatch):
    """An accessor that was registered, a name in `builtins` that an imported module uses, an attribute of a module."""
    monkeypatch.setattr(Cell, "area", lambda self: 1, raising=False)
    monkeypatch.setattr(builtins, "added_name", abs, raising=False)
    monkeypatch.setattr(np, "attribute_of_this_process", 1, raising=False)
    pool, options = request.getfixturevalue("pool"), RUNNERS["isolated" if way == "submit" else way](request)
    with pytest.raises(kind) as caught:
        pool.apply(function, (item,)) if way == "submit" else parallel_map(
            function, [item], **{**options, "isolate": True}
        )
    assert any("setup=f (of a Pool: initializer=f)" in note for note in caught.value.__notes__)


def test_a_mistake_gets_no_such_note():
    for function, kind in (
        (lambda x: undefined_name, NameError),  # noqa: F821
        (lambda x: x.nothing, AttributeError),
        (lambda x: np.nothing, AttributeError),
        (lambda x: __import__("nothing_of_this_name"), ModuleNotFoundError),
    ):
        with pytest.raises(kind) as caught:
            parallel_apply(function, np.arange(3.0), **ISOLATED)
        assert not any("setup=" in note for note in caught.value.__notes__)


def test_script_in_a_process_of_multiprocessing(tmp_path):
    """There the script is the module `__mp_main__`, which workers do not have."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import multiprocessing
from parwise import parallel_map
class Point:
    def __init__(self, k):
        self.k = k
def f(k):
    return Point(k)
def call(n):
    found = parallel_map(f, range(n), isolate=True, workers=2)
    return [point.k for point in found], {type(point) for point in found} == {Point}
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(call, (4,)))
"""
    )
    done = run_script("", str(script))
    assert done.stderr == ""
    assert done.stdout == "([0, 1, 2, 3], True)\n"


def test_initializer_of_a_module_from_a_path(tmp_path):
    (tmp_path / "code.py").write_text(
        "def begin(x):\n    global start\n    start = x\ndef f(k):\n    return start + k\n"
    )
    module = from_path("parwise_begun", tmp_path / "code.py")
    try:
        with Pool(2, initializer=module.begin, initargs=(10,)) as pool:
            assert list(pool.map(module.f, range(4))) == [10, 11, 12, 13]
    finally:
        del sys.modules["parwise_begun"]
