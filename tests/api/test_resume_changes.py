"""`resume` notices changes of modules, attributes and `setup`, and refuses nothing that is the same."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from importlib import metadata

import numpy as np
import pytest

import parwise
from parwise import parallel_apply

from .test_resume import memmap
from .test_resume_refused import function_of, start

with contextlib.suppress(ImportError):
    import netCDF4  # noqa: F401 - here, since it sets environment variables

# For each way to name a module: code with the function f, and the module whose file changes.
MODULES = {
    "import": ("def f(row):\n  import own_one\n  return own_one.g(row)", "own_one"),
    "from": ("def f(row):\n  from own_one import g\n  return g(row)", "own_one"),
    "from a package": ("def f(row):\n  from own_two import sub\n  return sub.g(row)", "own_two.sub"),
    "of a package": ("def f(row):\n  import own_two.sub as s\n  return s.g(row)", "own_two.sub"),
    "its package": ("def f(row):\n  import own_two.sub as s\n  return s.g(row)", "own_two"),
    "relative": ("__package__ = 'own_two'\ndef f(row):\n  from .sub import g\n  return g(row)", "own_two.sub"),
    "sibling": ("__package__ = 'own_two'\ndef f(row):\n  from . import sub\n  return sub.g(row)", "own_two.sub"),
    "within": ("def f(row):\n  def g(row):\n    import own_one\n    return own_one.g(row)\n  return g(row)", "own_one"),
    "attribute": ("import own_two.sub\ndef f(row): return own_two.sub.g(row)", "own_two.sub"),
    "closure": (
        "def make():\n  import own_two.sub\n  return lambda row: own_two.sub.g(row)\nf = make()",
        "own_two.sub",
    ),
    "another's": ("import own_two\ndef f(row): return own_two.h(row)", "own_two.sub"),
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module and a package of the user's."""
    folder = tmp_path / "own"
    (folder / "own_two").mkdir(parents=True)
    for name in ("own_one.py", "own_two/sub.py"):
        (folder / name).write_text("N = 1\ndef g(row): return row + N\n")
    (folder / "own_two" / "__init__.py").write_text("from .sub import g as h\n")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [one for one in sys.modules if one.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", MODULES)
def test_another_module(tmp_path, own, name):
    source, module = MODULES[name]
    f = function_of(source)
    for _ in range(2):  # first not imported, then imported
        start(tmp_path, f, executor="serial")
    path = own / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text()
    path.write_text(text + "N = 2\n")
    with pytest.raises(ValueError, match=f"different call: the file of the module {module} changed"):
        start(tmp_path, f, executor="serial")
    path.write_text(text)
    start(tmp_path, f, executor="serial")


def test_a_variable_of_a_module(tmp_path, own):
    f = function_of("import own_one\ndef f(row): return row + own_one.N")
    start(tmp_path, f, executor="serial")
    importlib.import_module("own_one").N = 3
    with pytest.raises(ValueError, match="the global variable 'own_one.N' changed"):
        start(tmp_path, f, executor="serial")


def test_the_version_of_a_module_that_is_imported_within(tmp_path, monkeypatch):
    f = function_of("def f(row):\n  import h5py._hl.base\n  return row")
    for _ in range(2):
        start(tmp_path, f, executor="serial")
    monkeypatch.setattr(metadata, "version", lambda name: "9.8.7")
    with pytest.raises(ValueError, match="the version of h5py h5py .* then, h5py 9.8.7 now"):
        start(tmp_path, f, executor="serial")


def test_modules_that_do_not_exist(tmp_path):
    source = "  try:\n    import own_none.sub\n    from ...beyond import x\n  except ImportError:\n    return row"
    f = function_of(f"def f(row):\n{source}", __package__="own_none")
    for _ in range(2):
        start(tmp_path, f, executor="serial")


def test_how_a_variable_of_netcdf4_is_read(tmp_path):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(tmp_path / "file.nc", "w") as file:
        file.createDimension("x", 4)
        for group in (file.createGroup("a"), file.createGroup("b")):
            variable = group.createVariable("v", "i2", ("x",), fill_value=-1)
            variable[:] = [1, 2, 3, 4]
            variable.scale_factor = 0.5

    def run(number, group="a", **switches):
        with netcdf.Dataset(tmp_path / "file.nc") as file:
            variable = file[group]["v"]
            for name, value in switches.items():
                getattr(variable, f"set_auto_{name}" if name != "always_mask" else "set_always_mask")(value)
            out = memmap(tmp_path / f"out {number}", (4,))
            return parallel_apply(
                np.negative, variable, out=out, resume=tmp_path / f"journal {number}", executor="serial"
            )

    for number, other in enumerate(({"scale": False}, {"mask": False}, {"always_mask": False}, {"group": "b"})):
        for _ in range(2):
            run(number)
        with pytest.raises(ValueError, match="array 0 .* then, .* now"):
            run(number, **other)


# For each change: code with the function f and a number K in it, and how the error names the difference.
ATTRIBUTES = {
    "function": ("def f(row): return row + f.k\nf.k = K", "k of the function changed"),
    "helper": ("def f(row): return row + h.k\ndef h(row): pass\nh.k = K", "k of h, which it uses changed"),
    "in a list": ("def f(row): return row + L[0].k\ndef h(row): pass\nh.k = K\nL = [h]", "global variable 'L' changed"),
    "registered": (
        "import functools, numpy\n@functools.singledispatch\ndef f(row): pass\n"
        "@f.register\ndef g(row: numpy.ndarray, k=K): return row + k",
        "registry of the function changed",
    ),
    "underscores": (
        "class C:\n  __k__ = K\n  def __call__(self, row): return row + self.__k__\nf = C()",
        "the function changed",
    ),
    "from outside": (
        "class C:\n  __k__ = [K]\ndef f(row): return row + C.__k__[0]",
        "__k__ of C, which it uses changed",
    ),
    "in a later one": (
        "class C:\n  __k__ = K\ndef f(row): return row + C().n if 0 else h(row)\ndef h(row): return row + C.__k__",
        "__k__ of C, which it uses changed",
    ),
    "cached property": (
        "import functools\ndef get(by):\n  "
        "class C:\n    @functools.cached_property\n    def k(self): return by\n  return C\n"
        "C = get(K)\ndef f(row): return row + C().k",
        "the closure variable 'by' of k of C, which it uses changed",
    ),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_another_attribute(tmp_path, name):
    source, text = ATTRIBUTES[name]
    for _ in range(2):
        start(tmp_path, function_of(source, K=1), executor="serial")
    with pytest.raises(ValueError, match=text):
        start(tmp_path, function_of(source, K=2), executor="serial")


def test_another_setup(tmp_path):
    def one(k):
        return function_of(f"def f(): return {k}")

    for _ in range(2):
        start(tmp_path, setup=one(1), executor="serial")
    for setup, text in ((one(2), "the code of setup changed"), (None, "the code of setup is gone")):
        with pytest.raises(ValueError, match=text):
            start(tmp_path, setup=setup, executor="serial")


def with_names(f):
    """The function with an attribute, of which it has others in turn."""

    @functools.wraps(f)
    def wrapper(*args):
        return f(*args)

    wrapper.names = {"a", "b", str(1)}
    return wrapper


SAME = """
    @decorated
    def f(row): return g(row) * C.by + C().k + d(row)

    @functools.singledispatch
    def d(row): return row

    @functools.lru_cache
    def h(k): return k

    @functools.wraps(h)
    def g(row): return row + h(1)

    class C:
        __schema__ = object, address
        by = 2
        def k(self): return 3
        k = functools.cached_property(k)
        k.__set_name__(None, "k")
"""


def test_equal_functions_are_the_same(tmp_path):
    """Whether they are decorated for parallel calls, with other options, or have a cache with something in it."""
    (tmp_path / "wrapped").mkdir()
    for decorator in (lambda f: f, parwise.parallel, parwise.parallel(workers=2)):
        f = function_of(SAME, functools=functools, decorated=decorator, address=id(decorator))
        for _ in range(2):
            start(tmp_path, f, executor="serial")
        start(tmp_path / "wrapped", with_names(f), executor="serial")
