"""The cases that asv follows over time.

asv imports this folder as a package of its own, named `history`, by an import hook
that worker processes do not have.
"""

import sys
from pathlib import Path

if __name__ == "history":
    _BENCHMARKS = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(_BENCHMARKS.parent))
    sys.path.append(str(_BENCHMARKS))
