"""Draw a comparison that was saved, and make its tables: ``python -m benchmarks.peers.draw RESULT.json PICTURE.svg``.

The picture takes its colours from the page that it stands in, light or dark.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .peers import PEERS

WIDTH, ROW, LEFT, RIGHT = 420, 17, 86, 44

HEAD = """<svg xmlns="http://www.w3.org/2000/svg" class="pw-peers" viewBox="0 0 {width} {height}" role="img"
     aria-label="{label}">
  <style>
    .pw-peers {{ width: 100%; max-width: 40rem; margin-bottom: 1rem; }}
    .pw-peers text {{ font: 12px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
      fill: var(--pst-color-text-base, #1d2733); }}
    .pw-peers .case {{ font-size: 13px; font-weight: bold; }}
    .pw-peers .bar {{ fill: #9aa5b1; }}
    .pw-peers .own {{ fill: #e69f00; }}
    .pw-peers .loop {{ stroke: var(--pst-color-text-base, #1d2733); stroke-dasharray: 3 3; }}
  </style>
"""
LABEL = "Bars: times as fast as the plain loop, for each kind of work and each library. The table has the same figures."


def picture(result: dict[str, Any]) -> str:
    """Bars for each case that is measured in time: how many times as fast as the loop; longer is better."""
    lines, top = [], 0
    for case in _timed(result):
        lines += _panel(case, top)
        top += ROW * (len(case["peers"]) - 1) + 42
    return "\n".join([HEAD.format(width=WIDTH, height=top, label=LABEL).rstrip(), *lines, "</svg>", ""])


def _timed(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Cases that take long enough for a ratio to the loop to mean something, with all peers."""
    cases = [case for case in result["cases"].values() if case["quantity"] == "time"]
    return [case for case in cases if case["peers"]["loop"]["median"] > 0.01]


def _panel(case: dict[str, Any], top: int) -> list[str]:
    ratios = {peer: case["peers"]["loop"]["median"] / one["median"] for peer, one in case["peers"].items()}
    scale = (WIDTH - LEFT - RIGHT) / max(ratios.values())
    lines = [f'  <text class="case" x="0" y="{top + 16}">{_title(case)}</text>']
    y = top + 22
    for peer, ratio in ratios.items():
        if peer == "loop":
            continue
        kind = "bar own" if peer == "parwise" else "bar"
        lines += [
            f'  <text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{PEERS[peer].title}</text>',
            f'  <rect class="{kind}" x="{LEFT}" y="{y + 2}" width="{ratio * scale:.1f}" height="{ROW - 4}"/>',
            f'  <text x="{LEFT + ratio * scale + 5:.1f}" y="{y + 12}">{ratio:.2f}</text>',
        ]
        y += ROW
    x = LEFT + scale
    return [*lines, f'  <path class="loop" d="M{x:.1f} {top + 20} V{y + 2}"/>']


def _title(case: dict[str, Any]) -> str:
    title: str = case["title"]
    return title.replace("us", "µs").replace(" x ", " \N{MULTIPLICATION SIGN} ")


def table(result: dict[str, Any], quantity: str) -> str:
    """Medians as a table in Markdown: milliseconds, or MiB."""
    cases = [case for case in result["cases"].values() if case["quantity"] == quantity]
    peers = list(cases[0]["peers"])
    rows = [["", *(PEERS[peer].title for peer in peers)], ["---", *["---:" for _ in peers]]]
    unit = 1e-3 if quantity == "time" else 2**20
    for case in cases:
        medians = [case["peers"][peer]["median"] / unit for peer in peers]
        rows.append([_title(case), *(f"{one:.0f}" if quantity == "memory" else _figure(one) for one in medians)])
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.draw", description=__doc__)
    parser.add_argument("result", type=Path, help="a file of python -m benchmarks.peers.compare --json")
    parser.add_argument("picture", type=Path, help="SVG file to write")
    given = parser.parse_args(argv)
    result = json.loads(given.result.read_text())
    given.picture.write_text(picture(result))
    for quantity in ("time", "memory"):
        if any(case["quantity"] == quantity for case in result["cases"].values()):
            print(table(result, quantity), end="\n\n")


if __name__ == "__main__":
    main()
