"""The journal: data is on the disk before the line that counts it; torn lines do not count; runs that are killed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from parwise import GapWarning, parallel_apply, parallel_map
from parwise._api.resume import ledger as ledgers
from parwise._api.resume.element_set import ElementSet, common_cuts, within_cuts
from parwise._api.resume.journal import MAGIC, Journal
from parwise._core.kernel import Outcome

from ..support import resumed_runs
from ..support.internals import Task, TaskQueue
from ..support.oracle import assert_same, loop
from ..support.stopping import Stopped, Stopping
from .test_resume import COUNT, OUTS, A, memmap, short_tasks, zarr_array  # noqa: F401 - a fixture


@pytest.fixture
def steps(monkeypatch):
    """What is done to files, in order: names of calls, and of files."""
    found = []

    def recorded(name, path_of):
        real = getattr(os, name)

        def call(*arguments, **more):
            found.append((name, path_of(arguments[0])))
            return real(*arguments, **more)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync", "pwrite"):
        recorded(name, lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
    recorded("replace", str)
    return found


def lines_of(steps, journal):
    """For each line of the journal: the steps before it, since the line before; and that it is synced at once."""
    before = []
    for (name, path), after in zip(steps, [*steps[1:], (None, None)], strict=True):
        if (name, path) == ("pwrite", str(journal)):
            assert after == ("fdatasync", str(journal))
            yield before
            before = []
        elif path != str(journal):
            before.append((name, path))


@pytest.mark.parametrize("name", OUTS)
def test_data_is_on_the_disk_before_its_line(tmp_path, name, steps, monkeypatch):
    monkeypatch.setattr(ledgers, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(ledgers, "COST_RATIO", 0.0)
    out = OUTS[name](tmp_path / "out")
    written = []
    f = Stopping(tmp_path)
    steps.clear()
    parallel_apply(f, A, out=out, resume=tmp_path / "journal", workers=1)
    header, *lines, done = lines_of(steps, tmp_path / "journal")
    assert {path for _, path in header} <= {str(tmp_path)}  # the name of the journal
    assert done == []
    told = [json.loads(line[9:]) for line in (tmp_path / "journal").read_bytes().split(b"\n")[2:-2]]
    assert len(told) == len(lines) >= 2  # on a busy machine tasks that end together share one
    assert sum(hi - lo for line in told for lo, hi, *_ in line["runs"]) == COUNT
    for before, line in zip(lines, told, strict=True):
        synced = {path for kind, path in before if kind in ("fsync", "fdatasync")}
        if "hdf5" in name or name == "memmap":
            assert synced == {str(tmp_path / "out")}
            continue
        assert all(lo % 4 == hi % 4 == 0 for lo, hi, _ in line["runs"])
        inside = {path for path in synced if os.path.isfile(path)}
        folders = synced - inside
        assert len(inside) == sum(hi - lo for lo, hi, _ in line["runs"]) // 4
        assert {os.path.dirname(path) for path in inside} | {str(tmp_path / "out")} <= folders
        written += inside
    if "zarr" in name or name == "shards":
        chunks = {str(p) for p in (tmp_path / "out").rglob("*") if p.is_file() and not p.name.endswith("json")}
        assert {one for one in chunks if not os.path.basename(one).startswith(".z")} == set(written)


def test_a_batch_is_on_the_disk_before_its_line(tmp_path, steps):
    folder = tmp_path / "results"
    parallel_map(str, range(5), resume=folder, workers=1)
    _, *lines = lines_of(steps, folder / "journal")
    for number, before in enumerate(lines):
        name = str(folder / f"results-{number:06d}.pkl.partial")
        assert before == [("fsync", name), ("replace", name), ("fsync", str(folder))]
    assert lines


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    """Cut at each byte of the last two lines, with and without the zeros that a file system may leave."""
    f = Stopping(tmp_path)
    how = {"resume": tmp_path / "journal", "workers": 1}
    for stop in (13, 22):
        with f.stopped_at(stop):
            parallel_apply(f, A, out=memmap(tmp_path / "out"), **how)
    whole = (tmp_path / "journal").read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord(b"\n")]
    f.calls()
    data = bytes(memmap(tmp_path / "out"))
    for cut in [*range(ends[-2] - 2, len(whole) + 1, 7), ends[-3], ends[-2], len(whole) - 1]:
        for zeros in (0, 50):
            (tmp_path / "journal").write_bytes(whole[:cut] + bytes(zeros))
            memmap(tmp_path / "out")[...] = np.frombuffer(data).reshape(A.shape)
            first = 22 if cut >= ends[-1] else 13 if cut >= ends[-2] else 0
            result = parallel_apply(f, A, out=memmap(tmp_path / "out"), **how)
            assert f.calls() == list(range(first, COUNT)), cut
            assert_same(np.asarray(result), loop(np.cumsum, A))
            parallel_apply(f, A, out=memmap(tmp_path / "out"), **how)
            assert f.calls() == [], cut


def test_a_header_that_was_cut_off(tmp_path):
    parallel_apply(np.sort, A, out=memmap(tmp_path / "out"), resume=tmp_path / "journal")
    whole = (tmp_path / "journal").read_bytes()
    header = whole.index(b"\n", len(MAGIC)) + 1
    for cut in (0, 1, len(MAGIC) - 1, len(MAGIC), len(MAGIC) + 5, header - 1):
        (tmp_path / "journal").write_bytes(whole[:cut])
        f = Stopping(tmp_path)
        parallel_apply(f, A, out=memmap(tmp_path / "out"), resume=tmp_path / "journal", workers=1)
        assert f.calls() == list(range(COUNT))


def test_zeros_in_the_place_of_a_header(tmp_path):
    """A file system may leave as many as were to be written at first; more are a file of something else."""
    start = {"out": memmap(tmp_path / "out"), "resume": tmp_path / "journal", "workers": 1}
    parallel_apply(np.sort, A, **start)
    whole = (tmp_path / "journal").read_bytes()
    header = whole.index(b"\n", len(MAGIC)) + 1
    (tmp_path / "journal").write_bytes(bytes(header + 1))
    with pytest.raises(ValueError, match="is not a journal of parwise, and was left as it is"):
        parallel_apply(np.sort, A, **start)
    assert (tmp_path / "journal").read_bytes() == bytes(header + 1)
    (tmp_path / "journal").write_bytes(bytes(header))
    assert_same(np.asarray(parallel_apply(np.sort, A, **start)), A)
    assert (tmp_path / "journal").read_bytes().startswith(whole[:header])


@pytest.fixture
def full(monkeypatch):
    """A function that has one write to a journal fail, as on a full disk, after so many others."""
    real, left = os.pwrite, []

    def pwrite(descriptor, data, at):
        if left and not left[0]:
            left.clear()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if left:
            left[0] -= 1
        return real(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(ledgers, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(ledgers, "COST_RATIO", 0.0)
    return left.append


def test_a_disk_that_is_full_for_a_moment(tmp_path, full):
    """The line that follows has all that the one which failed was to tell, gaps too."""

    def f(row):
        if row[0] % 7 == 3:
            raise ValueError("none")
        return row * 2

    how = {"resume": tmp_path / "journal", "workers": 1, "errors": "ignore"}
    full(4)  # the header, and elements 0 to 2: the first gap is in the next line
    with pytest.raises(OSError, match="No space left on device") as error:
        parallel_apply(f, A, out=memmap(tmp_path / "out"), **how)
    with pytest.warns(GapWarning) as caught:
        result = parallel_apply(f, A, out=memmap(tmp_path / "out"), **how)
    gaps = [k for k in range(COUNT) if k % 7 == 3]
    assert caught[0].message.indices == gaps
    expected = A * 2
    expected[gaps] = np.nan
    assert_same(np.asarray(result), expected)
    assert error.value.filename == str(tmp_path / "journal")


def test_a_folder_on_a_disk_that_is_full_for_a_moment(tmp_path, full):
    """No file of results that the journal lists is written over by a later run."""
    f = Stopping(tmp_path, str)
    how = {"resume": tmp_path / "results", "workers": 1}
    full(4)
    with pytest.raises(OSError, match="No space left on device"):
        parallel_map(f, range(20), **how)
    done = len(f.calls())
    with f.stopped_at(15):
        parallel_map(f, range(20), **how)
    assert f.calls() == list(range(done, 16))
    for first in (15, 20):
        assert parallel_map(f, range(20), **how) == list(map(str, range(20)))
        assert f.calls() == list(range(first, 20))


def test_results_for_which_there_is_no_room(tmp_path):
    """The first error is raised, nothing half written stays, and the next call computes what was not recorded."""
    f = Stopping(tmp_path, str)
    how = {"resume": tmp_path / "results", "workers": 1}
    (tmp_path / "results").mkdir()
    partial = tmp_path / "results" / "results-000000.pkl.partial"
    text = f"[Errno 28] No space left on device: '{partial}'"
    notes = []
    with pytest.MonkeyPatch.context() as patch, f.stopped_at(7):
        patch.setattr(ledgers, "LEAST_SECONDS", 1e9)
        partial.symlink_to("/dev/full")
        try:
            parallel_map(f, range(20), **how)
        except Stopped as error:
            notes += error.__notes__
            raise
    assert f"and the journal could not be brought up to date: OSError: {text}" in notes
    partial.symlink_to("/dev/full")
    with pytest.raises(OSError, match=re.escape(text)):
        parallel_map(f, range(20), **how)
    assert not partial.is_symlink()
    f.calls()
    assert parallel_map(f, range(20), **how) == list(map(str, range(20)))


def test_a_line_in_the_middle_that_is_damaged(tmp_path):
    with Journal(str(tmp_path / "journal")) as journal:
        for number in range(4):
            journal.append({"line": number})
    whole = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(whole.replace(b'"line":2', b'"line":7'))
    with pytest.raises(ValueError, match=r"line 4 of the journal .* is damaged; remove the journal to start again"):
        Journal(str(tmp_path / "journal"))
    (tmp_path / "journal").write_bytes(whole)
    with Journal(str(tmp_path / "journal")) as journal:
        assert [one["line"] for one in journal.lines] == [0, 1, 2, 3]


def test_an_interrupted_line_is_written_over(tmp_path, monkeypatch):
    """Ctrl-C within a line: the next line comes in its place, and not behind a half."""
    path = str(tmp_path / "journal")
    with Journal(path) as journal:
        journal.append({"line": 0})
        real = os.pwrite

        def half(descriptor, data, at):
            real(descriptor, data[: len(data) // 2], at)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(KeyboardInterrupt):
            journal.append({"line": "a long one " * 9})
        monkeypatch.setattr(os, "pwrite", real)
        journal.append({"line": 1})
    with Journal(path) as journal:
        assert [one["line"] for one in journal.lines] == [0, 1]


def test_an_interrupt_behind_a_line(tmp_path, monkeypatch):
    """Its file is not written over with the results of a thread that ends meanwhile."""
    monkeypatch.setattr(ledgers, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(ledgers, "COST_RATIO", 0.0)
    interrupted, recorded = threading.Event(), ledgers.ItemLedger._recorded

    def record(ledger, line):
        if threading.current_thread() is threading.main_thread() and not interrupted.is_set():
            interrupted.set()
            signal.raise_signal(signal.SIGINT)
        recorded(ledger, line)

    def f(number):
        if number >= 2 and threading.current_thread() is not threading.main_thread():
            interrupted.wait(10)
        return number * 2

    monkeypatch.setattr(ledgers.ItemLedger, "_recorded", record)
    how = {"resume": tmp_path / "results", "workers": 2, "executor": "threads"}
    with pytest.raises(KeyboardInterrupt):
        parallel_map(f, range(COUNT), **how)
    assert parallel_map(f, range(COUNT), **how) == [number * 2 for number in range(COUNT)]


class PlainLedger(ledgers.Ledger):
    """Keeps no results."""

    def _save(self, runs):
        return {"runs": runs}

    def _recorded(self, line):
        pass


def test_gaps_of_a_task_count_with_their_elements(tmp_path):
    """A task may begin and end within a chunk: of its gaps only those count whose chunks are complete."""
    failures = [ValueError("no 7"), TypeError("no 12")]
    parts = [([12, 15], 25, "TypeError", "no 12")], [([7], 25, "ValueError", "no 7")], [([22], 25, "Exception")]

    def outcome(gaps=None, **more):
        return Outcome(None, 0.0, gaps=None if gaps is None else np.array(gaps), **more)

    with Journal(str(tmp_path / "journal")) as journal:
        journal.append({})
        ledger = PlainLedger(None, journal, [0, 10, 20, 30])
        ledger.note(Task(5, 25), outcome([7, 12, 15, 22], error=failures[0], failures=failures))
        for number, task in enumerate([None, Task(0, 5), Task(25, 30)], 1):
            if task is not None:
                ledger.note(task, outcome())
            ledger.commit()
            shutil.copy(tmp_path / "journal", tmp_path / "copy")
            with Journal(str(tmp_path / "copy")) as copy:
                found = PlainLedger(None, copy, None)
            assert list(found.counted) == [[(10, 20)], [(0, 20)], [(0, 30)]][number - 1]
            told = [one for part in parts[:number] for one in part]
            assert [one[: len(want)] for one, want in zip(found.gaps, told, strict=True)] == told


def test_a_gap_that_does_not_count_yet_is_computed_again(tmp_path, monkeypatch):
    """It is no gap any more if it has a result by then, though another gap of its task counts."""
    monkeypatch.setattr(TaskQueue, "_size", lambda *arguments: 10)

    def f(row):
        if row[0] in (5, 9) and not (tmp_path / "there").exists():
            raise OSError("not there yet")
        if row[0] == 15 and not (tmp_path / "there").exists():
            raise KeyboardInterrupt  # which is not ignored
        return row * 2

    def call():
        out = zarr_array(tmp_path / "out")
        parallel_apply(f, A, out=out, resume=tmp_path / "journal", workers=1, errors="ignore")

    with pytest.raises(KeyboardInterrupt):
        call()
    (tmp_path / "there").touch()
    with pytest.warns(GapWarning) as caught:
        call()
    assert caught[0].message.indices == [5]
    expected = A * 2
    expected[5] = np.nan
    assert_same(np.asarray(zarr_array(tmp_path / "out")[...]), expected)


def test_an_error_counts_what_was_done(tmp_path):
    """Also what no line was worth yet."""
    f = Stopping(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "LEAST_SECONDS", 1e9)
        with f.stopped_at(17):
            parallel_apply(f, A, out=memmap(tmp_path / "out"), resume=tmp_path / "journal", workers=1)
    f.calls()
    parallel_apply(f, A, out=memmap(tmp_path / "out"), resume=tmp_path / "journal", workers=1)
    assert f.calls() == list(range(17, COUNT))


def test_lines_are_few(tmp_path):
    """A call of many short tasks has a line for each 0.1 s at most."""
    parallel_apply(np.sort, A, out=memmap(tmp_path / "out"), resume=tmp_path / "journal", workers=1)
    assert len((tmp_path / "journal").read_bytes().split(b"\n")) <= 6


def test_runs():
    assert list(ElementSet([(5, 9), (0, 2), (2, 5), (20, 30), (25, 40)])) == [(0, 9), (20, 40)]
    rng = np.random.default_rng(1)
    for _ in range(200):
        several = [set(), set()]
        runs = ElementSet(), ElementSet()
        for which, lo, length in rng.integers(0, [2, 50, 9], (12, 3)).tolist():
            runs[which].add(lo, lo + length)
            several[which] |= set(range(lo, lo + length))
        for own, elements in zip(runs, several, strict=True):
            assert {k for lo, hi in own for k in range(lo, hi)} == elements == {k for k in range(60) if k in own}
            assert {k for lo, hi in own.rest(60) for k in range(lo, hi)} == set(range(60)) - elements
        left = list(runs[0].without(runs[1]))
        assert {k for lo, hi in left for k in range(lo, hi)} == several[0] - several[1]
        assert left == list(ElementSet(left))
    assert common_cuts([None, [0, 2, 4, 6], [0, 3, 6]]) == [0, 6]
    assert common_cuts([None]) is None
    assert within_cuts(0, 5, [0, 6]) == (0, 0)


@pytest.mark.parametrize("kind", resumed_runs.KINDS)
def test_kills_at_random(kind):
    """``python tests/support/resumed_runs.py 100`` makes more of them."""
    with tempfile.TemporaryDirectory() as folder:
        killed, calls, resumed = resumed_runs.run_until_done(kind, folder, seed=8, kills=3)
        assert Path(folder, "result.npy").exists()
    assert killed + 1 >= resumed
    assert calls >= resumed_runs.COUNT
