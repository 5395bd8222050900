"""Tests, in folders that mirror the packages; `support` holds what several of them share."""

import sys
from pathlib import Path

# `python -m pytest`, run in this folder, puts it on the path, where `numpy` and `xarray` are folders of tests.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).parent]
