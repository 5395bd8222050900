"""
A folder of CSV files
=====================

A buoy off the coast of Maine measures the temperature of the sea each half hour. How
much warmer is the water in the afternoon than before dawn, and how sure is that? The
function reads one file, one day, and answers for that day, with an interval from a
bootstrap. `parallel_map` calls it for each file.

- A day with gaps returns None, and ``drop_none=True`` leaves it out.
- ``rng=42`` hands each file its own random generator: the intervals do not depend on
  the number of workers.

The data is ``data/buoy.csv.gz`` beside the script or the notebook; the page with all
examples has it to download. It is cut into one file a day here, as a logger writes them.
"""

import csv
import gzip
import itertools
import os
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from parwise import parallel_map

DRAWS = 300  # of each bootstrap; 20 is a quick try

here = Path(__file__).parent if "__file__" in globals() else Path()  # a notebook has no __file__
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
with gzip.open(here / "data" / "buoy.csv.gz", "rt") as file:
    header, *lines = file
    for day, rows in itertools.groupby(lines, key=lambda line: line[:10]):
        (folder / f"{day}.csv").write_text(header + "".join(rows))
paths = sorted(folder.glob("*.csv"))
print(f"files       {len(paths)}, {paths[0].name} to {paths[-1].name}")

# %%
# The function, for one file.


def daily_range(path, *, rng):
    """Day, mean temperature, range of its daily wave, and a 90 % interval of the range."""
    with open(path, newline="") as file:
        records = list(csv.DictReader(file))
    if len(records) < 48:
        return None  # a day with gaps
    hours = np.array([int(one["time (UTC)"][11:13]) + int(one["time (UTC)"][14:16]) / 60 for one in records])
    celsius = np.array([float(one["temperature (celsius)"]) for one in records])
    angle = 2 * np.pi * hours / 24
    design = np.column_stack([np.ones_like(hours), hours - 12, np.cos(angle), np.sin(angle)])
    fitted = np.linalg.lstsq(design, celsius)[0]
    residuals = celsius - design @ fitted
    draws = []
    for _ in range(DRAWS):
        again = np.linalg.lstsq(design, design @ fitted + rng.choice(residuals, len(residuals)))[0]
        draws.append(2 * np.hypot(*again[2:]))
    return path.stem, celsius.mean(), 2 * np.hypot(*fitted[2:]), *np.quantile(draws, [0.05, 0.95])


# %%
# Both ways. The plain loop gets the same generators, from NumPy's ``spawn``.

print(f"machine     {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start")

start = time.perf_counter()
generators = np.random.default_rng(42).spawn(len(paths))
loop = [daily_range(path, rng=rng) for path, rng in zip(paths, generators, strict=True)]
loop = [one for one in loop if one is not None]
loop_time = time.perf_counter() - start

start = time.perf_counter()
days = parallel_map(daily_range, paths, rng=42, drop_none=True)
parallel_time = time.perf_counter() - start

print(f"plain loop  {loop_time:.1f} s, {loop_time / len(paths) * 1e3:.0f} ms a file")
print(f"parallel    {parallel_time:.1f} s, with the start of the workers")
print(f"speed-up    {loop_time / parallel_time:.2f}")
print(f"same bits   {days == loop}")
print(f"left out    {len(paths) - len(days)} days with gaps")

# %%
# The year of the sea, and the days on which it warms by day.

dates = np.array([day for day, *_ in days], "datetime64[D]")
mean, spread, low, high = np.array([numbers for _, *numbers in days]).T
figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 5.6), layout="constrained", sharex=True)
top.scatter(dates, mean, c=mean, cmap="turbo", s=9)
top.set_title("Sea surface temperature at buoy B01, daily mean (°C)")
bottom.vlines(dates, low, high, color="#9ecae1", linewidth=2, label="90 % interval")
bottom.plot(dates, spread, ".", color="#08519c", markersize=4, label="fitted")
bottom.set_title("Range of the daily wave (°C)")
bottom.set_ylim(0, 4)
bottom.legend(frameon=False, loc="upper left")
figure.savefig("csv_folder.png", dpi=110)
print("picture     csv_folder.png")
temporary.cleanup()
