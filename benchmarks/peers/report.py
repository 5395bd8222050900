"""The result of a comparison as text."""

from __future__ import annotations

from typing import Any

from .peers import PEERS

#: Cases in which a call is so short that what it costs beyond the loop is the point.
SHORT = ("b", "g")
# Floor and base, which parwise need not be ahead of.
_NO_RIVALS = ("loop", "forks", "parwise")


def render(result: dict[str, Any]) -> str:
    """Make tables of times and memory, and lines about how parwise stands."""
    by_quantity = [
        ("time", f"median ms, and times as fast as the loop; {result['workers']} workers, {result['cpus']} CPUs"),
        ("memory", "peak MiB beyond input and output"),
    ]
    lines = [f"left out: {PEERS[name].title} is not installed" for name in result["left_out"]]
    for quantity, heading in by_quantity:
        cases = {name: case for name, case in result["cases"].items() if case["quantity"] == quantity}
        if cases:
            lines += ["", heading, *_table(cases)]
    lines.append("")
    for name, case in result["cases"].items():
        lines += [f"{name}: {remark}" for remark in _remarks(name, case)]
    return "\n".join(lines).strip()


def _table(cases: dict[str, Any]) -> list[str]:
    peers = next(iter(cases.values()))["peers"]
    table = [["case", *(PEERS[peer].title for peer in peers)]]
    for name, case in cases.items():
        table.append([f"{name}  {case['title']}", *(_cell(case, peer) for peer in peers)])
    first, *others = ([cell.rjust(max(map(len, column))) for cell in column] for column in zip(*table, strict=True))
    names = [cell.strip().ljust(len(cell)) for cell in first]
    return ["  ".join(row) for row in zip(names, *others, strict=True)]


def _cell(case: dict[str, Any], peer: str) -> str:
    value = case["peers"][peer]["median"]
    if value is None:
        return "failed"
    if case["quantity"] == "memory":
        return f"{value / 2**20:.0f}"
    base = case["peers"]["loop"]["median"]
    ratio = "-" if base is None else f"{base / value:.2f}"
    return f"{_milliseconds(value)} {ratio:>6}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}" if seconds < 0.01 else f"{seconds * 1e3:.1f}"


def _remarks(name: str, case: dict[str, Any]) -> list[str]:
    peers = case["peers"]
    remarks = [f"{PEERS[peer].title} failed: {one['error']}" for peer, one in peers.items() if one["error"]]
    remarks += [
        f"{PEERS[peer].title} differs from the loop"
        for peer, one in peers.items()
        if one["median"] is not None and not one["equal"]
    ]
    medians = {peer: one["median"] for peer, one in peers.items() if one["median"] is not None}
    if "parwise" in medians and case["quantity"] == "time":
        remarks += _standing(name, medians)
    return remarks


def _standing(name: str, medians: dict[str, float]) -> list[str]:
    """How parwise stands against floor, base and rivals."""
    own = medians["parwise"]
    remarks = []
    if "forks" in medians:
        remarks.append(f"share of bare forks: {medians['forks'] / own:.0%}")
    if name in SHORT and "loop" in medians:
        remarks.append(f"over the loop: {(own - medians['loop']) * 1e3:+.3f} ms")
    ahead = [PEERS[peer].title for peer, value in medians.items() if peer not in _NO_RIVALS and value < own]
    if ahead:
        remarks.append(f"ahead of parwise: {', '.join(ahead)}")
    return remarks
