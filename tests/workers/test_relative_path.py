"""Where modules come from if the module path is relative: as in the loop, and never from where the program has gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import parwise

MARKING = "with open({marker!r}, 'a') as file: file.write({name!r} + '\\n')\n"
#: What an interpreter imports at its start, and what parwise imports.
NAMES = ("sitecustomize.py", "usercustomize.py", "encodings/__init__.py", "ctypes.py", "random.py", "numpy/__init__.py")
SOURCE = str(Path(parwise.__file__).parent.parent)


@pytest.fixture
def folders(tmp_path):
    """Two folders: ``start``, with a package of relative entries, and ``there``, full of modules that leave a mark."""
    marker = tmp_path / "marker"
    for name in NAMES:
        for folder in ("there", "there/rel"):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(MARKING.format(marker=str(marker), name=str(path)))
    for folder, value in (("start/rel", 1), ("there/rel", 2), ("there/late", 3)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "helper.py").write_text(f"VALUE = {value}\n")
        (tmp_path / folder / "other.py").write_text(f"VALUE = {10 * value}\n")
    return tmp_path


def run_in(folder, code, *options, path="", **variables):
    """Run a script whose first directory is `folder`."""
    environ = {**os.environ, "PYTHONPATH": path + os.pathsep + SOURCE if path else SOURCE, **variables}
    done = subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", code],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


GOES = """
import os, sys
{before}
import numpy as np
from parwise import parallel_apply, parallel_map
os.chdir("../there")
{after}
def f(k):
    import helper
    return helper.VALUE, os.environ.get("PYTHONPATH"), list(sys.path), os.getcwd()
found = parallel_map(f, range(4), isolate=True, workers=2)
print(found == [f(k) for k in range(4)], found[0][0])
"""


@pytest.mark.parametrize("path", ["rel:", ":rel", "rel", "", "./rel/../rel:."])
def test_relative_variable_means_what_it_meant_at_the_start(path, folders):
    before = "" if "rel" in path else "sys.path.insert(0, 'rel')"
    after = "" if "rel" in path else "sys.path.remove('rel'); sys.path.insert(0, '../start/rel')"
    assert run_in(folders / "start", GOES.format(before=before, after=after), path=path) == "True 1\n"
    assert not (folders / "marker").exists()


@pytest.mark.parametrize("entry", ["''", "'.'", "'rel'", "'../there'", "'../there/rel'"])
def test_relative_entries_are_not_for_the_fork_server(entry, folders):
    """Entries that this interpreter searches only now mean, to workers as to the loop, where the program is now."""
    code = f"""
import os, sys
import numpy as np
from parwise import parallel_map
os.chdir("../there")
sys.path.insert(0, {entry})
found = parallel_map(abs, range(-4, 0), isolate=True, workers=2)
print(found, parallel_map(lambda k: sys.path[0], range(2), isolate=True)[0] == {entry})
"""
    assert run_in(folders / "start", code) == "[4, 3, 2, 1] True\n"
    assert not (folders / "marker").exists()


def test_variable_that_the_program_sets_later(folders):
    """It says nothing of this interpreter's path, so the fork server starts without its relative entries."""
    after = "os.environ['PYTHONPATH'] = 'rel::.:' + os.environ['PYTHONPATH']; sys.path.append('../start/rel')"
    assert run_in(folders / "start", GOES.format(before="", after=after)) == "True 1\n"
    assert not (folders / "marker").exists()


@pytest.mark.parametrize("way", ["PYTHONUSERBASE", "PYTHONPYCACHEPREFIX", "-Xpycache_prefix=rel"])
def test_other_folders_that_an_interpreter_is_given(way, folders):
    code = """
import os
from parwise import parallel_map
os.chdir("../there")
def f(k):
    import site, sys
    return os.environ.get(WAY), site.getuserbase() if WAY == "PYTHONUSERBASE" else sys.pycache_prefix
print(*parallel_map(f, range(1), isolate=True)[0])
"""
    options, variables = ([way], {}) if way.startswith("-") else ([], {way: "rel"})
    said = run_in(folders / "start", f"WAY = {way!r}\n{code}", *options, **variables)
    assert said == f"{variables.get(way)} {folders / 'start' / 'rel'}\n"


@pytest.mark.parametrize("entry", ["rel", "late", ""])
def test_modules_of_relative_entries_are_those_of_the_loop(entry, folders):
    """Python resolves an entry when it first searches it, but "" each time: workers take that over for each call."""
    code = f"""
import os, sys
from parwise import parallel_map
sys.path.insert(0, {entry!r})
def f(k):
    import other
    return other.VALUE, os.path.dirname(other.__file__)
def loop():
    found = [f(k) for k in range(4)]
    del sys.modules["other"]
    return found
if {entry == "rel"}:
    import helper  # 'rel' means ../start/rel from now on
warm = parallel_map(abs, range(4), isolate=True, workers=2)
os.chdir("../there" if {bool(entry)} else "../there/late")
found = parallel_map(f, range(4), isolate=True, workers=2)
print(found == loop(), found[0][0])
"""
    assert run_in(folders / "start", code) == f"True {10 if entry == 'rel' else 30}\n"


def test_parwise_and_numpy_found_by_the_empty_entry(folders):
    """They come from where the caller has them, not from where another version may be installed."""
    (folders / "code").mkdir()
    (folders / "code" / "parwise").symlink_to(Path(parwise.__file__).parent)
    code = """
import os, sys
sys.path[:] = ["", *(one for one in sys.path if one and one != SOURCE)]
import parwise
parwise.parallel_map(abs, range(2))  # or this process would search the other directory, too
os.chdir("..")
print(parwise.parallel_map(lambda k: __import__("parwise").__file__, range(2), isolate=True) == [parwise.__file__] * 2)
"""
    assert run_in(folders / "code", f"SOURCE = {SOURCE!r}\n{code}") == "True\n"


@pytest.mark.parametrize("path", ["", "rel:"])
@pytest.mark.parametrize("cold", [True, False])
def test_large_calls_where_the_directory_was_removed(cold, path, folders):
    """Also after the program has gone to another directory."""
    code = f"""
import os, sys
import numpy as np
from parwise import parallel_apply
a = np.random.default_rng(0).random((30, 30_000))
loop = np.array([row.cumsum() for row in a])
def right():
    found = parallel_apply(lambda row: row.cumsum(), a, isolate=True, workers=2)
    return found.tobytes() == loop.tobytes()
said = [] if {cold} else [right()]
os.mkdir("gone")
os.chdir("gone")
os.rmdir("../gone")
sys.path[:0] = ["", "nowhere"]
said += [right(), right()]
os.chdir("/")
print(said + [right()])
"""
    assert run_in(folders / "start", code, path=path) == f"{[True] * (3 if cold else 4)}\n"
