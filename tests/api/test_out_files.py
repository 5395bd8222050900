"""`out` in a file: a full disk is told before any work, and ends no process."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from numpy.lib.array_utils import byte_bounds

from parwise import parallel_apply
from parwise._api import out_files

from ..support.oracle import assert_same


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of mappings")
def test_a_mapping_is_known_by_the_name_and_the_place_that_it_has_now(tmp_path):
    def found(array):
        return out_files.mapping_of(array, byte_bounds(array)[0])

    page = mmap.ALLOCATIONGRANULARITY
    out = np.memmap(tmp_path / "part", np.uint8, "w+", shape=2 * page)
    assert found(out).path == os.fsencode(tmp_path / "part")
    assert found(out) is found(out[5:])  # asked once
    os.rename(tmp_path / "part", tmp_path / "whole")
    assert found(out).path == os.fsencode(tmp_path / "whole")
    (tmp_path / "part").touch()  # another file takes the name
    assert found(out).path == os.fsencode(tmp_path / "whole")
    os.rename(tmp_path / "part", tmp_path / "whole")
    assert found(out).path.endswith(b" (deleted)")
    assert found(out) is found(out)
    with open(tmp_path / "grows", "w+b") as file:
        file.truncate(page)
        memory = mmap.mmap(file.fileno(), page)
    for pages in (1, 2000, 3):
        memory.resize(pages * page)
        array = np.frombuffer(memory, np.uint8)
        assert found(array).start == byte_bounds(array)[0]
        del array


@pytest.mark.skipif(sys.platform != "linux", reason="fallocate")
def test_a_file_that_was_renamed_gets_its_room(tmp_path):
    rows = 64, 1 << 14
    out = np.memmap(tmp_path / "part", "f8", "w+", shape=rows)
    parallel_apply(np.negative, np.ones((1, rows[1])), out=out[:1])
    os.rename(tmp_path / "part", tmp_path / "whole")
    before = os.stat(tmp_path / "whole").st_blocks * 512
    out_files.allocate([out])
    assert os.stat(tmp_path / "whole").st_blocks * 512 >= out.nbytes > before


# 8 MB of results on a disk of 1 MiB.
SCRIPT = """
import errno, mmap, os, sys
from pathlib import Path
import numpy as np
from parwise import parallel_apply
os.chdir("/mnt")
a = np.arange(8000.0).reshape(8, 1000)
shape = 8, 125_000

def f(row):
    open("called", "a").close()
    return np.resize(row, 125_000)

def mapped(shape, name="out", **more):
    return np.memmap(name, dtype="f8", mode="w+", shape=shape, **more)

def existing():
    mapped(shape)
    return np.memmap("out", dtype="f8", mode="r+", shape=shape)

def plain():
    with open("out", "w+b") as file:
        file.truncate(8_000_000)
        return np.frombuffer(mmap.mmap(file.fileno(), 8_000_000)).reshape(shape)

def strided():
    return mapped((125_000, 16)).T[::2]

KINDS = {
    "new": lambda: mapped(shape),
    "existing": existing,
    "offset": lambda: mapped(shape, offset=4096 + 8),
    "view": lambda: np.asarray(mapped((10, 125_000)))[1:9],
    "strided": strided,
    "npy": lambda: np.lib.format.open_memmap("out", "w+", np.float64, shape),
    "plain": plain,
    "tuple": lambda: (mapped(8, "small"), mapped(shape)),
}
kind, options = sys.argv[1], eval(sys.argv[2])
out = KINDS[kind]()
g = (lambda row: (row[0], f(row))) if kind == "tuple" else f
try:
    parallel_apply(g, a, out=out, **options)
except OSError as error:
    assert error.errno == errno.ENOSPC and os.path.samefile(error.filename, "out"), error
    assert "out takes" in str(error), error
assert not os.path.exists("called")
assert os.statvfs(".").f_bavail > 200, "the disk was left full"

# What has room is right, on the same disk.
del out
os.truncate("out", 0)
small = np.memmap("fits", dtype="f8", mode="w+", shape=(8, 1000))
assert parallel_apply(np.sort, -a, out=small, **options) is small
assert Path("fits").read_bytes() == np.sort(-a).tobytes()
# Room that was taken before is the file's own.
with open("fits", "r+b") as file:
    os.posix_fallocate(file.fileno(), 0, 900_000)
again = np.memmap("fits", dtype="f8", mode="r+", shape=(112, 1000))
parallel_apply(lambda k: np.full(1000, float(k)), np.arange(112), out=again, **options)
assert Path("fits").read_bytes()[:896_000] == np.repeat(np.arange(112.0), 1000).tobytes()
print("right")
"""


@pytest.mark.parametrize("options", ["{'isolate': True, 'workers': 2}", "{'executor': 'threads', 'workers': 2}", "{}"])
@pytest.mark.parametrize("kind", ["new", "existing", "offset", "view", "strided", "npy", "plain", "tuple"])
def test_full_disk(kind, options, tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    own = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = "mount -t tmpfs -o size=1m tmpfs /mnt"
    if subprocess.run([*own, mount], capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [*own, f'{mount} && exec "$0" -W error "$@"', sys.executable, str(script), kind, options],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


def test_only_the_room_of_out_is_taken(tmp_path):
    path = tmp_path / "out"
    whole = np.memmap(path, dtype="f8", mode="w+", shape=(1000, 100_000))
    before = path.stat().st_blocks * 512
    whole[0] = 7.0
    for k in (500, 501):
        parallel_apply(np.negative, np.arange(100_000.0), out=whole[k])
        whole.flush()
    taken = path.stat().st_blocks * 512 - before
    assert 2_400_000 <= taken < 10_000_000
    assert path.stat().st_size == 800_000_000
    assert_same(np.fromfile(path, count=100_000), np.full(100_000, 7.0))
    assert_same(np.fromfile(path, count=100_000, offset=400_000_000), -np.arange(100_000.0))


def test_copies_on_write_take_no_room(tmp_path):
    path = tmp_path / "out"
    np.memmap(path, dtype="f8", mode="w+", shape=(1000, 10_000))
    before = path.stat().st_blocks
    out = np.memmap(path, dtype="f8", mode="c", shape=(1000, 10_000))
    parallel_apply(np.negative, np.arange(10_000.0), out=out[7])
    assert_same(np.asarray(out[7]), -np.arange(10_000.0))
    assert path.stat().st_blocks == before


@pytest.mark.parametrize("reason", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_file_systems_that_take_no_room_beforehand(reason, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(out_files, "_fallocate", lambda *given: [asked.append(given), reason][1])
    out = np.memmap(tmp_path / "out", dtype="f8", mode="w+", shape=(10, 1000))
    parallel_apply(np.negative, np.ones((10, 1000)), out=out)
    assert len(asked) == 1
    assert_same(np.asarray(out), -np.ones((10, 1000)))


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_errors_that_say_there_is_no_room(reason, tmp_path, monkeypatch):
    monkeypatch.setattr(out_files, "_fallocate", lambda *_: reason)
    out = np.memmap(tmp_path / "out", dtype="f8", mode="w+", shape=(10, 1000))
    with pytest.raises(OSError, match="out takes 80000 bytes of its file") as caught:
        parallel_apply(np.negative, np.ones((10, 1000)), out=out)
    assert caught.value.errno == reason
    assert caught.value.filename == str(tmp_path / "out")


@pytest.mark.parametrize("fate", ["deleted", "replaced", "read-only", "renamed"])
def test_files_that_are_not_there_any_more(fate, tmp_path):
    path = tmp_path / "with a space"
    out = np.memmap(path, dtype="f8", mode="w+", shape=(10, 1000))
    if fate == "deleted":
        path.unlink()
    elif fate == "renamed":
        path.rename(tmp_path / "other")
    elif fate == "replaced":
        path.unlink()
        os.mkfifo(path)
    else:
        path.chmod(0o400)
    parallel_apply(np.negative, np.ones((10, 1000)), out=out)
    assert_same(np.asarray(out), -np.ones((10, 1000)))


def test_mappings_are_looked_up_once(tmp_path, monkeypatch):
    found = []
    find = out_files._find
    monkeypatch.setattr(out_files, "_find", lambda address: [found.append(address), find(address)][1])
    out = np.memmap(tmp_path / "out", dtype="f8", mode="w+", shape=(10, 1000))
    for k in range(10):
        parallel_apply(np.negative, np.ones(1000), out=out[k])
    parallel_apply(np.negative, np.ones((10, 1000)), out=np.empty((12, 1000))[2:])
    assert len(found) == 1
    assert_same(np.asarray(out), -np.ones((10, 1000)))


def test_columns_take_no_more_than_their_pages(tmp_path):
    """20 numbers, each on a page of its own: the pages between them stay holes."""
    out = np.memmap(tmp_path / "out", dtype="f8", mode="w+", shape=(20, 250_000))
    a = np.arange(40.0).reshape(20, 2)
    assert_same(parallel_apply(np.sum, a, out=out[:, 7]), a.sum(axis=1))
    assert os.stat(tmp_path / "out").st_blocks * 512 <= 20 * 2 * 4096
    assert out[3, 7] == a[3].sum()
