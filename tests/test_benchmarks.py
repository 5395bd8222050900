"""Each benchmark runs, made small, and returns the loop's result; the full ones are run by hand."""

import argparse
import inspect
import itertools
import json
import mmap
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from benchmarks import classes, grid, labelled, lazy, observer_cost, scale, soak, submit, throughput
from benchmarks.history import suite
from benchmarks.history.base import Case
from benchmarks.peers import cases, compare, draw, memory, peers, work

from parwise import parallel_apply

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def small_runs():
    """Yield each method of each asv case with each of its parameters, made small."""
    for name, case in inspect.getmembers(suite, inspect.isclass):
        if issubclass(case, Case) and not inspect.isabstract(case):
            small = case.small()
            for method in (one for one in dir(small) if one.startswith(("time_", "track_"))):
                for params in itertools.product(*small.params):
                    yield pytest.param(small, method, params, id="-".join([name, method, *map(str, params)]))


@pytest.mark.parametrize(("small", "method", "params"), list(small_runs()))
def test_asv_case_runs_once(small, method, params):
    case = small()
    case.setup(*params)
    getattr(case, method)(*params)
    assert np.asarray(case.parwise()).tobytes() == np.asarray(case.loop()).tobytes()
    case.teardown(*params)


def test_asv_has_every_case_beside_the_loop():
    methods = {}
    for run in small_runs():
        small, method, _ = run.values
        methods.setdefault(small.__name__, set()).add(method)
    names = "Compute Data Dispatch Handshake Items Labelled Memory Random Tiny Uneven Watched"
    assert set(methods) == set(names.split())
    for name, found in methods.items():
        kind = "track" if name == "Memory" else "time"
        assert found == {f"{kind}_loop", f"{kind}_parwise"}


def test_peak_memory_counts_this_process():
    nbytes = 50 * 2**20
    with memory.PeakMemory() as peak:
        block = np.ones(nbytes, np.uint8)
    assert nbytes * 0.95 < peak.beyond < nbytes * 1.5
    del block


def _hold(nbytes):
    with mmap.mmap(-1, int(nbytes)) as held:
        held.write(bytes(int(nbytes)))
        time.sleep(5 * memory.INTERVAL_SECONDS)
    return nbytes


def test_peak_memory_counts_descendants():
    nbytes = 30 * 2**20
    with memory.PeakMemory() as peak:
        parallel_apply(_hold, np.full(2, float(nbytes)), workers=2, isolate=True)
    assert nbytes * 0.95 < peak.beyond


@pytest.mark.parametrize("peer", ["loop", "parwise"])
@pytest.mark.parametrize("case", ["c", "e"])
def test_measure(case, peer):
    pace = work.NOMINAL
    func, array = cases.CASES[case].work(pace, True)
    outcome = cases.measure(cases.CASES[case], peers.PEERS[peer], pace, small=True)
    assert outcome["value"] > 0
    assert outcome["digest"] == cases.digest(work.loop(func, array))


def test_digest_tells_bits_apart():
    zero = np.zeros(2)
    different = [zero, -zero, zero.astype("f4"), zero.reshape(2, 1), [0.0, 0.0]]
    assert len({cases.digest(one) for one in different}) == len(different)


def test_pace():
    pace = work.calibrate()
    assert pace.call > 0
    assert pace.step > 0
    assert work.Pace(call=1.0, step=0.5).steps(3.0) == 4
    assert work.Pace(call=1.0, step=0.5).steps(0.1) == 0


def test_compare_gives_one_entry_per_peer(tmp_path, capsys):
    file = tmp_path / "result.json"
    result = compare.main(
        ["--small", "--rounds", "1", "--cases", "h,b", "--peers", "parwise,forks", "--json", str(file)]
    )
    assert json.loads(file.read_text()) == result
    assert list(result["cases"]) == ["b", "h"]
    assert result["left_out"] == []
    for case in result["cases"].values():
        assert list(case["peers"]) == ["loop", "forks", "parwise"]
        for one in case["peers"].values():
            assert one["error"] is None
            assert one["equal"]
            assert one["rounds"] == [one["median"]]
    printed = capsys.readouterr().out
    assert "share of bare forks: " in printed
    assert "over the loop: " in printed
    assert "MiB" in printed


def test_compare_adds_to_an_earlier_result(tmp_path, monkeypatch):
    file = tmp_path / "result.json"
    common = ["--small", "--rounds", "1", "--peers", "parwise", "--json", str(file)]
    first = compare.main([*common, "--cases", "c"])
    both = compare.main([*common, "--cases", "b"])
    assert list(both["cases"]) == ["b", "c"]
    assert both["cases"]["c"] == first["cases"]["c"]
    with pytest.raises(SystemExit, match="of 2 workers"):
        compare.main([*common, "--cases", "b", "--workers", "3"])
    monkeypatch.setattr(compare, "machine", lambda: {"processor": "another"})
    with pytest.raises(SystemExit, match="another machine or of other versions"):
        compare.main([*common, "--cases", "b"])
    assert json.loads(file.read_text()) == both


def test_drawing_of_a_comparison(tmp_path, capsys):
    picture = tmp_path / "peers.svg"
    draw.main([str(RESULTS / "peers.json"), str(picture)])
    assert xml.etree.ElementTree.parse(picture).getroot().tag.endswith("svg")
    assert capsys.readouterr().out.count("| plain loop |") == 2


def test_compare_reports_what_fails(monkeypatch, capsys):
    monkeypatch.setitem(peers.PEERS, "mpire", peers.Peer("mpire", "no_such_module", None))
    result = compare.main(["--small", "--rounds", "2", "--cases", "a", "--peers", "mpire", "--timeout", "0.001"])
    assert result["left_out"] == ["mpire"]
    assert result["cases"]["a"]["peers"] == {
        "loop": {"median": None, "rounds": [], "equal": False, "error": "took over 0.001 s"}
    }
    printed = capsys.readouterr().out
    assert "left out: mpire is not installed" in printed
    assert "plain loop failed: took over 0.001 s" in printed


def test_compare_tells_why_a_run_ended():
    given = argparse.Namespace(small=True, timeout=60, workers=2)
    outcome = compare.run_apart("no such case", "loop", work.NOMINAL, given)
    assert outcome == {"error": "exit status 1: KeyError: 'no such case'"}


@pytest.mark.parametrize("wrong", [["--cases", "a,x"], ["--peers", "none"], ["--worker", "a", "loop"]])
def test_compare_refuses(wrong, capsys):
    with pytest.raises(SystemExit):
        compare.main(wrong)
    assert "error" in capsys.readouterr().err


def test_observer_cost(capsys):
    ratios = observer_cost.main(["--elements", "50", "--rounds", "2"])
    assert set(ratios) == {"progress", "report"}
    assert all(ratio > 0 for ratio in ratios.values())
    assert capsys.readouterr().out.count(" times the plain call's time") == 2


def test_submit(capsys):
    medians = submit.main(["--rounds", "1", "--calls", "20"])
    assert set(medians) == {"parwise.Pool", "ProcessPoolExecutor"}
    assert "times the time of the standard library's executor" in capsys.readouterr().out


def test_scale(capsys):
    found = scale.main(["--rounds", "1", "--workers", "3", "--part", "0.005"])
    assert set(found) == set(scale.CASES)
    for one in found.values():
        assert all(0 < each.efficiency <= 1.05 and each.cpu > 0 and each.tasks >= 1 for each in one.values())
    assert capsys.readouterr().out.count("us of the caller's CPU") == 6


def test_labelled(capsys):
    result = labelled.main(["--small", "--rounds", "1"])
    assert all(seconds > 0 for medians in result.values() for seconds in medians.values())
    assert set(result["a line fitted to each pixel"]) == {"xarray", "parwise", "parallel_apply"}
    printed = capsys.readouterr().out
    assert printed.count("times xarray's speed") == len(result) - 1
    assert "beyond the computation itself: " in printed


def test_labelled_tells_unlike_results():
    with pytest.raises(AssertionError, match="not the same bits"):
        labelled.in_turn({"one": lambda: np.ones(1), "other": lambda: np.zeros(1)}, 1)


def test_lazy(capsys):
    result = lazy.main(["--rounds", "1", "--side", "3"])
    for medians in result.values():
        assert set(medians) == {"xarray", "parwise"}
        assert medians["parwise"].optimized <= medians["xarray"].optimized
    assert capsys.readouterr().out.count("ms a chunk") == 4


def test_soak(capsys):
    first, *_, last = soak.main(["--small", "--seed", "3"])
    assert sum(last.outcomes.values()) > 3
    assert (first.children, first.descriptors) == (last.children, last.descriptors)
    assert capsys.readouterr().out.count("descriptors") >= 3


def test_classes_beside_forked_processes(capsys):
    medians = classes.main(["--rounds", "1", "--count", "4", "--steps", "10"])
    assert set(medians) >= {"loop", "concurrent.futures, forked", "parallel_map"}
    assert "times the forked executor's" in capsys.readouterr().out


def test_grid(capsys):
    found = grid.main(["--rounds", "1", "--longest", "0.00001", "--beside", "1", "--all"])
    assert all(cell.fits for cell in found)
    out = capsys.readouterr().out
    assert f"{len(found)} cells: " in out
    assert out.count("parwise") == len(found) > 5


@pytest.mark.parametrize(
    ("cell", "loop", "taken", "fault"),
    [
        (grid.Cell(10, 1e-6, 8), 1e-5, 0.2e-3, ""),
        (grid.Cell(10, 1e-6, 8), 1e-5, 0.3e-3, "slow"),
        (grid.Cell(10, 1e-2, 8), 0.1, 0.05, ""),
        (grid.Cell(10, 1e-2, 8), 0.1, 0.07, "lazy"),
        (grid.Cell(1000, 1e-4, 1_000_000), 0.1, 0.1, ""),
    ],
)
def test_faults_of_cells(cell, loop, taken, fault):
    assert cell.fault(loop, taken) == fault


def test_a_cell_is_not_lazy_where_two_bare_processes_are_no_faster():
    cell = grid.Cell(10, 1e-2, 8)
    assert cell.fault(0.1, 0.07, halves=0.065) == ""
    assert cell.fault(0.1, 0.07, halves=0.06) == "lazy"


def test_bare_halves():
    with grid.Halves() as other:
        seconds = grid.measured(grid.Cell(5, 1e-6, 8), 10, 1, other)
    assert len(seconds) == 3


def test_what_one_process_can_feed(tmp_path, capsys):
    constants, picture = str(tmp_path / "constants.json"), tmp_path / "model.svg"
    found = throughput.main(["--part", "0.01", "--workers", "2", "--results", constants])
    assert found["own"]["cost"].task > 0
    assert "ms for a megabyte" in capsys.readouterr().out
    # In a process of its own: matplotlib keeps files of fonts open.
    command = [sys.executable, "-m", "benchmarks.throughput", "--results", constants, "--draw", str(picture)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    assert picture.read_text().lstrip().startswith("<?xml")


def test_the_model_of_throughput():
    cost = throughput.Cost(1e-3, 1e-3)
    assert throughput.efficiency("dask", cost, 10, 1.0, 8) == 1
    # Large elements: one process can carry 1,000 MB in and out a second, so 50 elements of 10 MB.
    assert throughput.efficiency("dask", cost, 1000, 1.0, 10**7) == pytest.approx(50 / 1000, rel=0.1)
