"""What `inspect.signature` and `help` show of functions that take options."""

from __future__ import annotations

import inspect
import pydoc
import re
from pathlib import Path

import pytest

import parwise
import parwise.xarray as px
from parwise import Options, Pool, parallel
from parwise._core.options.settings import Settings

NAMES = list(Options.__annotations__)
ALL = [parwise.parallel_apply, parwise.parallel_map, parallel, px.DataArrayMaps.map]
HOW = [px.DatasetMaps.map, px.DataTreeMaps.map, px.DataArrayMaps.map_groups, px.DataArrayMaps.map_windows]
NO_RESUME = [parwise.parallel_imap, parwise.vectorize, parwise.options, *HOW]
IN_POOL = [Pool.imap]


def test_options_are_settings():
    """One has the names and types, the other the defaults."""
    found = {"undecided", "why_executor"}  # no options: what is found out where nobody has chosen an executor
    assert set(NAMES) == set(Settings._fields) - found
    assert "checkpoint" not in NAMES


@pytest.mark.parametrize("func", ALL + NO_RESUME + IN_POOL, ids=lambda one: one.__qualname__)
def test_each_option_is_shown(func):
    hidden = ["resume"] * (func in NO_RESUME + IN_POOL) + ["executor"] * (func in IN_POOL)
    shown = inspect.signature(func).parameters
    assert [name for name in NAMES if name not in shown] == [name for name in NAMES if name in hidden]
    for name in set(NAMES) & set(shown):
        assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert shown[name].default == Settings._field_defaults[name]
        assert shown[name].annotation == Options.__annotations__[name].__forward_arg__
    text = pydoc.plain(pydoc.render_doc(func))
    entries = re.findall(r"^ +\|?  +(\w+) : ", text, re.MULTILINE)
    assert set(NAMES) - set(hidden) <= set(entries)
    assert not re.search(r"^ *\*\*(options|how)$", text, re.MULTILINE)


@pytest.mark.parametrize("func", HOW, ids=lambda one: one.__qualname__)
def test_keywords_of_maps_are_shown(func):
    shown = inspect.signature(func).parameters
    assert set(px.How.__annotations__) - {"resume"} <= set(shown)
    assert (shown["args"].default, shown["depth"].default, shown["keep_attrs"].default) == ((), 0, True)


@pytest.mark.parametrize("func", NO_RESUME, ids=lambda one: one.__qualname__)
def test_what_is_always_refused_is_not_shown(func):
    text = pydoc.plain(pydoc.render_doc(func))
    assert "Keeps a journal" not in text


def test_help_of_a_decorated_function():
    @parallel
    def quotient(x, by=2, *, digits: int = 3):
        return round(x / by, digits)

    text = pydoc.plain(pydoc.render_doc(quotient.parallel))
    assert "parallel(items, /, by=2, *, digits: 'int' = 3)" in text
    assert "Call quotient for each item" in text
    assert inspect.signature(quotient).parameters.keys() == {"x", "by", "digits"}
    assert quotient.parallel([6, 9], 3, digits=1) == [2.0, 3.0]


@pytest.mark.parametrize(
    "func", [dict, print, lambda *items: items, lambda: 1], ids=["dict", "print", "items", "nothing"]
)
def test_decorated_functions_of_any_signature(func):
    class Callable:
        def __init__(self):
            self.call = func

        def __call__(self, *args):
            return func(*args)

    parallel(Callable())
    if inspect.isroutine(func) and not inspect.isbuiltin(func):
        parallel(func)


def test_pages_differ_by_more_than_case():
    """Systems that ignore the case of file names would keep one of two pages."""
    docs = Path(__file__).parents[2] / "docs"
    if not docs.is_dir():
        pytest.skip("the documentation is not here")
    found = re.search(r"autosummary_filename_map = (\{.*?\})", (docs / "conf.py").read_text(), re.DOTALL)
    pages = eval(found.group(1))
    names, module = [], "parwise"
    for line in (docs / "reference.md").read_text().splitlines():
        module = line.split()[-1] if line.startswith(".. currentmodule::") else module
        if re.fullmatch(r"   [A-Za-z][\w.]*", line):
            names.append(f"{module}.{line.strip()}")
    files = [pages.get(name, name).casefold() for name in names]
    assert {"parwise.Options", "parwise.options", "parwise.Report", "parwise.report"} <= set(names)
    assert len(files) == len(set(files))
