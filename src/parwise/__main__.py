"""``python -m parwise``: tell what this machine offers."""

from __future__ import annotations

from ._machine import describe

if __name__ == "__main__":
    for line in describe():
        print(line, flush=True)
