"""
How much of the sky does each place on a map see?
=================================================

The sky-view factor of a place says which share of the sky the hills around it leave
free. It is computed from the horizon in 36 directions: about 100 µs of NumPy for one
pixel, and there are 89,238 pixels. The function is written for one pixel.
`parallel_apply` calls it for each of them on all CPU cores, and returns the bits of
the plain loop.

You need Matplotlib only: ``pip install parwise matplotlib``.
"""

import os
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data
from matplotlib.colors import LightSource

from parwise import parallel_apply

STEP = 1  # every pixel; 8 is a quick try

# %%
# The data: elevation around the Jacksboro fault, Tennessee, which comes with Matplotlib.

with get_sample_data("jacksboro_fault_dem.npz") as dem:
    elevation = dem["elevation"].astype(float)
    spacing = float(dem["dy"])  # degrees from pixel to pixel
    west, north = float(dem["xmin"]), float(dem["ymax"])

metres = np.pi / 180 * 6_371_000 * spacing
height, width = metres, metres * np.cos(np.radians(north - spacing * len(elevation) / 2))  # of a pixel

# %%
# The function, for one pixel.

RADIUS = 3_000.0  # metres: how far to look
AZIMUTHS = np.radians(np.arange(0, 360, 10))[:, np.newaxis]  # clockwise from north
DISTANCES = np.arange(width, RADIUS, width / 2)


def elevation_at(row, column):
    """Elevation between pixel centres, by bilinear interpolation."""
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    south, east = row - top, column - left
    upper = (1 - east) * elevation[top, left] + east * elevation[top, left + 1]
    lower = (1 - east) * elevation[top + 1, left] + east * elevation[top + 1, left + 1]
    return (1 - south) * upper + south * lower


def sky_view(pixel):
    """Share of the sky that one pixel sees: 1 on a plain or a summit, less in a valley."""
    row, column = pixel
    along_rows = row - DISTANCES * np.cos(AZIMUTHS) / height
    along_columns = column + DISTANCES * np.sin(AZIMUTHS) / width
    slope = (elevation_at(along_rows, along_columns) - elevation[row, column]) / DISTANCES
    horizon = np.arctan(slope.max(axis=1)).clip(min=0)
    return 1 - np.sin(horizon).mean()


# %%
# All pixels that have everything within the radius on the map: an array of shape (rows, columns, 2).

margins = np.ceil([RADIUS / height, RADIUS / width]).astype(int)
rows, columns = (
    np.arange(margin, length - margin, STEP) for margin, length in zip(margins, elevation.shape, strict=True)
)
pixels = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)

# %%
# How busy are the CPUs? What other programs take, neither the loop nor the workers can have.


def busy_seconds(cpus):
    """CPU time that all programs have used so far, on some of the CPUs of a Linux machine."""
    with open("/proc/stat") as file:
        times = {name: [int(text) for text in ticks] for name, *ticks in map(str.split, file)}
    ticks = sum(sum(times[f"cpu{cpu}"][:3]) + sum(times[f"cpu{cpu}"][5:8]) for cpu in cpus)
    return ticks / os.sysconf("SC_CLK_TCK")


if sys.platform == "linux":
    cpus = os.sched_getaffinity(0)
    before = busy_seconds(cpus)
    time.sleep(0.5)
    taken = (busy_seconds(cpus) - before) / 0.5
    print(f"machine     {len(cpus)} CPUs; other programs keep {taken:.1f} of them busy")
    if taken > 0.2 * len(cpus):
        print("            so expect less speed-up than the machine can give: `python -m parwise` says how much")

# %%
# Both ways, each with its progress.


def progress(name):
    """Make a function that shows on a terminal how far the work called `name` is."""

    def show(done, total):
        if sys.stdout.isatty():
            print(f"{name:<12}{done / total:.0%}", end="\r", flush=True)

    return show


def plain_loop(show):
    """Compute the sky-view factors by the loop that `parallel_apply` stands for."""
    found = []
    for number, row in enumerate(pixels, 1):
        found.append([sky_view(pixel) for pixel in row])
        show(number, len(pixels))
    return np.array(found)


start = time.perf_counter()
loop = plain_loop(progress("plain loop"))
loop_time = time.perf_counter() - start
print(f"plain loop  {loop_time:.1f} s for {loop.size:,} pixels, {loop_time / loop.size * 1e6:.0f} µs each")

start = time.perf_counter()
sky = parallel_apply(sky_view, pixels, axis=(0, 1), progress=progress("parallel"))
parallel_time = time.perf_counter() - start
print(f"parallel    {parallel_time:.1f} s, with the start of the workers")
print(f"speed-up    {loop_time / parallel_time:.2f}")
print(f"same bits   {sky.tobytes() == loop.tobytes()}")

# %%
# The map and the result.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.7), layout="constrained", sharey=True)
edges = west + columns[[0, -1]] * spacing, north - rows[[-1, 0]] * spacing
shown = {"extent": (*edges[0], *edges[1]), "aspect": height / width}
sun = LightSource(azdeg=315, altdeg=45)
land = elevation[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
lit = sun.shade(land, plt.colormaps["gist_earth"], vmin=-300, vmax=1100, blend_mode="soft", dx=width, dy=height)
left.imshow(lit, **shown)
left.set_title("Cumberland Mountains, Tennessee")
picture = right.imshow(sky, cmap="bone", vmax=1, **shown)
right.set_title(f"Share of the sky that is seen past hills within {RADIUS / 1000:g} km")
figure.colorbar(picture, ax=right, aspect=30)
for axes in (left, right):
    axes.locator_params(nbins=5)
    axes.xaxis.set_major_formatter(lambda longitude, _: f"{-longitude:.2f}° W")
    axes.yaxis.set_major_formatter(lambda latitude, _: f"{latitude:.2f}° N")
figure.savefig("quickstart.png", dpi=110)
print("picture     quickstart.png")
