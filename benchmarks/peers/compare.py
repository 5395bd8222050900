"""Set parwise beside other libraries: ``python -m benchmarks.peers.compare``.

Each peer runs in a process of its own, one after another, for several rounds;
medians over the rounds are reported.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parwise import __version__

from .cases import CASES, measure
from .peers import PEERS
from .report import render
from .work import WORKERS, Pace, calibrate

ROOT = Path(__file__).resolve().parent.parent.parent

#: What became of one peer on one case in one round: ``value`` and ``digest``, or ``error``.
Outcome = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the comparison that the command line asks for, print it and return it."""
    given = _parse(argv)
    if given.worker:
        case, peer = given.worker
        outcome = measure(CASES[case], PEERS[peer], Pace(*given.pace), given.small)
        print(json.dumps(outcome))
        return outcome
    earlier = _earlier(given.json, given.workers)
    result = compare(given)
    print(render(result))
    if given.json:
        result["cases"] = {name: result["cases"].get(name) or earlier.get(name) for name in CASES}
        result["cases"] = {name: case for name, case in result["cases"].items() if case}
        Path(given.json).write_text(json.dumps(result, indent=1) + "\n")
    return result


def _earlier(file: str | None, workers: int) -> dict[str, Any]:
    """Cases that are in the file already; those of another machine, other versions or workers are refused."""
    if file is None or not Path(file).exists():
        return {}
    found = json.loads(Path(file).read_text())
    if found["machine"] != machine():
        raise SystemExit(f"{file} has results of another machine or of other versions: {found['machine']}")
    if found["workers"] != workers:
        raise SystemExit(f"{file} has results of {found['workers']} workers, not of {workers}")
    cases: dict[str, Any] = found["cases"]
    return cases


def machine() -> dict[str, str]:
    """Processor, system, and the versions that matter."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "joblib", "mpire") if _installed(name)}
    return {
        "processor": names[0] if names else platform.processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "parwise": __version__,
        **versions,
    }


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def _installed(name: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(name))
    return False


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.compare", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="times that each peer runs (default: 3)")
    parser.add_argument("--cases", type=_names_of(CASES), default=list(CASES), help=f"of {','.join(CASES)}")
    parser.add_argument("--peers", type=_names_of(PEERS), default=list(PEERS), help=f"of {','.join(PEERS)}")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that all works")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that one run may take (default: 120)")
    parser.add_argument("--workers", type=int, default=WORKERS, help=f"processes of each (default: {WORKERS})")
    parser.add_argument("--json", metavar="FILE", help="write the result here, beside cases of earlier runs")
    parser.add_argument("--worker", nargs=2, metavar=("CASE", "PEER"), help="measure once, in this process")
    parser.add_argument("--pace", nargs=2, type=float, metavar=("CALL", "STEP"), help="for --worker")
    given = parser.parse_args(argv)
    if given.worker and not given.pace:
        parser.error("--worker needs --pace")
    return given


def _names_of(table: dict[str, Any]) -> Any:
    """Make a converter of a list of names, separated by commas."""

    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in table]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(table)}")
        return [name for name in table if name in chosen]

    return names


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Run all that is asked for, in rounds, and sum it up.

    Returns
    -------
    dict
        ``cases`` maps a case to its ``peers``, and these to ``median``,
        ``rounds``, ``equal`` (to the loop's bits) and ``error``.
    """
    # The loop is the base of every ratio, and of what is the right result.
    peers = [name for name in PEERS if name in given.peers or name == "loop"]
    left_out = [name for name in peers if not PEERS[name].installed]
    peers = [name for name in peers if name not in left_out]
    pace = calibrate()
    outcomes: dict[str, dict[str, list[Outcome]]] = {case: {peer: [] for peer in peers} for case in given.cases}
    for number in range(given.rounds):
        for case in given.cases:
            print(f"round {number + 1} of {given.rounds}, case {case}", file=sys.stderr)
            for peer in peers:
                if not _failed(outcomes[case][peer]):
                    outcomes[case][peer].append(run_apart(case, peer, pace, given))
    return {
        "machine": machine(),
        "workers": given.workers,
        "cpus": len(os.sched_getaffinity(0)),
        "left_out": left_out,
        "cases": {case: _summary(case, by_peer) for case, by_peer in outcomes.items()},
    }


def run_apart(case: str, peer: str, pace: Pace, given: argparse.Namespace) -> Outcome:
    """Measure one peer on one case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peers.compare", "--worker", case, peer]
    command += ["--pace", repr(pace.call), repr(pace.step), *(["--small"] if given.small else [])]
    env = {**os.environ, "BENCHMARK_WORKERS": str(given.workers)}
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    # In a session of its own, so that no worker of its outlives it.
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=null, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            printed, complaints = process.communicate(timeout=given.timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return {"error": f"took over {given.timeout:g} s"}
            raise
    if process.returncode:
        last = (complaints.strip().splitlines() or ["no message"])[-1]
        return {"error": f"exit status {process.returncode}: {last}"}
    outcome: Outcome = json.loads(printed.splitlines()[-1])
    return outcome


def _failed(outcomes: list[Outcome]) -> bool:
    return any("error" in one for one in outcomes)


def _summary(case: str, by_peer: dict[str, list[Outcome]]) -> dict[str, Any]:
    right = {one["digest"] for one in by_peer["loop"] if "digest" in one}
    return {
        "title": CASES[case].title,
        "quantity": CASES[case].quantity,
        "peers": {peer: _sum_up(outcomes, right) for peer, outcomes in by_peer.items()},
    }


def _sum_up(outcomes: list[Outcome], right: set[str]) -> dict[str, Any]:
    values = [one["value"] for one in outcomes if "value" in one]
    failed = _failed(outcomes)
    return {
        "median": None if failed or not values else statistics.median(values),
        "rounds": values,
        "equal": {one["digest"] for one in outcomes if "digest" in one} == right and len(right) == 1,
        "error": next((one["error"] for one in outcomes if "error" in one), None),
    }


if __name__ == "__main__":
    main()
