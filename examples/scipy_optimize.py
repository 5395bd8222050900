"""
SciPy's optimisers: where should three fire lookouts stand?
===========================================================

`scipy.optimize.differential_evolution` takes the function with which it maps its
candidates as ``workers=``, and `parallel_map` is such a function. The search goes the
same way with the plain `map`: same bits, generation by generation.
"""

import os
import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data
from matplotlib.colors import LightSource
from scipy.optimize import differential_evolution

from parwise import parallel_map

GENERATIONS = 20  # 2 is a quick try

with get_sample_data("jacksboro_fault_dem.npz") as data:
    elevation = data["elevation"][::2, ::2].astype(float)  # hills in Tennessee; comes with Matplotlib
CELL = 160.0  # metres from pixel to pixel, about
TOWER = 30.0  # metres above ground
RANGE = 15_000.0  # metres
AZIMUTHS = np.radians(np.arange(0, 360, 0.5))[:, np.newaxis]

# %%
# The function: what share of the map do towers at these places not see?


def seen_from(row, column):
    """Which places are seen from a tower."""
    distance = np.arange(1, RANGE / CELL)
    rows = np.rint(row + distance * np.cos(AZIMUTHS)).astype(int)
    columns = np.rint(column + distance * np.sin(AZIMUTHS)).astype(int)
    inside = (rows >= 0) & (rows < elevation.shape[0]) & (columns >= 0) & (columns < elevation.shape[1])
    rows, columns = rows.clip(0, elevation.shape[0] - 1), columns.clip(0, elevation.shape[1] - 1)
    slope = (elevation[rows, columns] - elevation[row, column] - TOWER) / distance
    free = inside & (slope >= np.maximum.accumulate(slope, axis=1))
    seen = np.zeros(elevation.shape, bool)
    seen[rows[free], columns[free]] = True
    return seen


def seen_from_all(places):
    """Which places are seen from at least one of the towers."""
    return np.logical_or.reduce([seen_from(*place) for place in np.reshape(places, (-1, 2)).astype(int)])


def hidden_share(places):
    """Share of the map that no tower sees."""
    return 1 - seen_from_all(places).mean()


def search(workers):
    """Places of three towers that leave least hidden."""
    rows, columns = np.array(elevation.shape) - 1
    return differential_evolution(
        hidden_share,
        [(0, rows), (0, columns)] * 3,
        workers=workers,
        updating="deferred",
        integrality=np.ones(6, bool),
        popsize=8,
        maxiter=GENERATIONS,
        tol=0,
        polish=False,
        rng=7,
    )


# %%
# Both ways.

print(f"machine     {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start")

start = time.perf_counter()
plain = search(map)
plain_time = time.perf_counter() - start

start = time.perf_counter()
found = search(parallel_map)
parallel_time = time.perf_counter() - start

print(f"plain map   {plain_time:.1f} s for {plain.nfev} candidates")
print(f"parallel    {parallel_time:.1f} s, with the start of the workers")
print(f"speed-up    {plain_time / parallel_time:.2f}")
print(f"same bits   {found.x.tobytes() == plain.x.tobytes() and found.fun == plain.fun}")

# %%
# The hills, and in colour what the best towers see.

figure, axes = plt.subplots(figsize=(7.5, 6), layout="constrained")
axes.imshow(LightSource(315, 45).hillshade(elevation, vert_exag=2, dx=CELL, dy=CELL), cmap="gray", vmin=-0.3)
seen = seen_from_all(found.x)
axes.imshow(np.ma.masked_where(~seen, elevation), cmap="autumn", alpha=0.45)
rows, columns = np.reshape(found.x, (-1, 2)).T
axes.plot(columns, rows, "^", color="white", markeredgecolor="black", markersize=13)
axes.set_title(f"Three lookouts see {seen.mean():.0%} of the hills, {RANGE / 1000:g} km far")
axes.set_axis_off()
figure.savefig("scipy_optimize.png", dpi=110)
print("picture     scipy_optimize.png")
