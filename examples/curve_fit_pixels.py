"""
A curve fitted to each pixel
============================

When is the wind at the height of airliners strongest, and how much does it change with
the season? `scipy.optimize.curve_fit` answers that for one place, with twelve monthly
means. `.par.map` of parwise calls it for each of the 10,512 places of an xarray
DataArray. It takes the names of the dimensions to map over, keeps coordinates, and
returns what ``xarray.apply_ufunc(..., vectorize=True)`` returns, bit by bit.

The data is ``data/wind.nc`` beside the script or the notebook; the page with all examples
has it to download.
"""

import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from scipy.optimize import curve_fit

import parwise.xarray  # noqa: F401 - adds .par

STEP = 1  # every pixel; 8 is a quick try

here = Path(__file__).parent if "__file__" in globals() else Path()  # a notebook has no __file__
with xr.open_dataset(here / "data" / "wind.nc", engine="scipy") as data:
    wind = data["wind"][:, ::STEP, ::STEP].load()
print(f"wind        zonal, at 200 hPa: {dict(wind.sizes)}")

# %%
# The function, for one pixel: a mean, a yearly and a half-yearly wave.


def season(month, mean, year, year_peak, half, half_peak):
    """Wind at a time of the year, in months."""
    angle = 2 * np.pi * (month - np.array([[year_peak], [half_peak]])) / [[12], [6]]
    return mean + year * np.cos(angle[0]) + half * np.cos(angle[1])


FINE = np.linspace(0.5, 12.5, 240, endpoint=False)


def fit_season(series, month):
    """Month of the strongest west wind, and its range over the year, by a fitted curve."""
    guess = series.mean(), np.ptp(series) / 2, month[series.argmax()], 1.0, month[series.argmax()]
    found, _ = curve_fit(season, month, series, guess, maxfev=5000)
    curve = season(FINE, *found)
    return FINE[curve.argmax()], np.ptp(curve)


# %%
# Both ways.

month = wind.month.to_numpy().astype(float)
print(f"machine     {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start")

start = time.perf_counter()
dims = {"input_core_dims": [["month"]], "output_core_dims": [[], []]}
loop = xr.apply_ufunc(fit_season, wind, kwargs={"month": month}, vectorize=True, **dims)
loop_time = time.perf_counter() - start

start = time.perf_counter()
strongest, change = wind.par.map(fit_season, ("latitude", "longitude"), args=(month,))
parallel_time = time.perf_counter() - start

same = all(one.values.tobytes() == other.values.tobytes() for one, other in zip((strongest, change), loop, strict=True))
print(f"apply_ufunc {loop_time:.1f} s, {loop_time / strongest.size * 1e6:.0f} µs a pixel")
print(f"parallel    {parallel_time:.1f} s, with the start of the workers")
print(f"speed-up    {loop_time / parallel_time:.2f}")
print(f"same bits   {same}")

# %%
# Two maps: the jets of both hemispheres are strongest in their winters.

figure, (top, bottom) = plt.subplots(2, 1, figsize=(8.5, 8), layout="constrained", sharex=True)
when = top.pcolormesh(wind.longitude, wind.latitude, strongest, cmap="twilight_shifted", vmin=0.5, vmax=12.5)
bar = figure.colorbar(when, ax=top, aspect=25, ticks=range(1, 13))
bar.set_ticklabels(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])
top.set_title("When the west wind at 200 hPa is strongest")
much = bottom.pcolormesh(wind.longitude, wind.latitude, change, cmap="magma")
figure.colorbar(much, ax=bottom, aspect=25, label="m/s")
bottom.set_title("Its range over the year")
bottom.set_xlabel("longitude (° E)")
for axes in (top, bottom):
    axes.set_ylabel("latitude (° N)")
    axes.set_aspect("equal")
figure.savefig("curve_fit_pixels.png", dpi=110)
print("picture     curve_fit_pixels.png")
