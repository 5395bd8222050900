"""Does the Pacific warm? A trend and its significance for each pixel of an xarray DataArray.

`trend` is written for one series: the median slope of all pairs of years, and how
often years in another order would give as steep a slope. `sst.par.map` calls it for
each pixel and gives two DataArrays with their coordinates: what `xarray.apply_ufunc`
gives with ``vectorize=True``, bit by bit.

    python xarray_pixels.py                  # writes xarray_pixels.png beside this file
    python xarray_pixels.py map.png --small  # few orders of years only
"""

import importlib.util
from pathlib import Path

import numpy as np
import xarray as xr
from common import parse, report, same_bits, save, timed
from matplotlib.figure import Figure

import parwise.xarray  # noqa: F401 - gives DataArray its .par


def load_temperatures():
    """Read the sea surface temperatures of the Pacific, winter by winter, that come with the package eofs."""
    home = Path(importlib.util.find_spec("eofs").origin).parent
    with xr.open_dataset(home / "examples" / "example_data" / "sst_ndjfm_anom.nc", engine="scipy") as data:
        return data["sst"].load()


def trend(series, years, orders):
    """Median slope of all pairs of years, and its p-value.

    Parameters
    ----------
    series : ndarray, shape (n,)
        One value a year; NaN on land.
    years : ndarray, shape (n,)
    orders : ndarray of int, shape (m, n)
        Orders of years, in blocks of some years each, to compare with.

    Returns
    -------
    tuple of float
        Change a year, and the share of orders with as steep a slope.
    """
    if np.isnan(series).any():
        return np.nan, np.nan
    first, second = np.triu_indices(len(years), 1)
    apart = years[second] - years[first]
    slope = np.median((series[second] - series[first]) / apart)
    shuffled = series[orders]
    slopes = np.median((shuffled[:, second] - shuffled[:, first]) / apart, axis=1)
    return slope, (1 + np.sum(np.abs(slopes) >= abs(slope))) / (1 + len(orders))


def orders_of(n, block, count):
    """Random orders of `n` years, in which blocks of neighbours stay together."""
    rng = np.random.default_rng(0)
    starts = np.arange(0, n, block)
    order = [np.concatenate([np.arange(s, min(s + block, n)) for s in rng.permutation(starts)]) for _ in range(count)]
    return np.array(order)


def main(argv=None):
    """Map the trend both ways, compare, and draw it."""
    options = parse(__file__, __doc__, argv)
    sst = load_temperatures()
    years = sst.time.dt.year.to_numpy().astype(float)
    orders = orders_of(len(years), 3, 19 if options.small else 399)
    print(f"data        sst_ndjfm_anom.nc from eofs: {dict(sst.sizes)}")
    print(f"trend       median of {len(years) * (len(years) - 1) // 2} slopes, for {len(orders)} orders of years")

    expected, loop_time = timed(
        xr.apply_ufunc,
        trend,
        sst,
        kwargs={"years": years, "orders": orders},
        input_core_dims=[["time"]],
        output_core_dims=[[], []],
        vectorize=True,
    )
    found, parallel_time = timed(sst.par.map, trend, ("latitude", "longitude"), args=(years, orders))
    report(loop_time, parallel_time, all(same_bits(*pair) for pair in zip(found, expected, strict=True)))
    save(draw(*found, years), options.picture)


def draw(slope, p_value, years):
    """The map of slopes, dotted where they stand out."""
    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#d9cfb8")
    colours = axes.pcolormesh(slope.longitude, slope.latitude, 10 * slope, cmap="RdBu_r", vmin=-0.3, vmax=0.3)
    clear = p_value.where(p_value < 0.05).stack(pixel=("latitude", "longitude")).dropna("pixel")
    axes.plot(clear.longitude, clear.latitude, ".", color="0.15", markersize=3)
    figure.colorbar(colours, ax=axes, label="°C per decade", extend="both", aspect=30)
    axes.set_title(f"Winter sea surface temperature, {years[0]:.0f} to {years[-1]:.0f} (dots: p < 0.05)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f}° E" if value <= 180 else f"{360 - value:.0f}° W")
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0f}° {'N' if value >= 0 else 'S'}")
    axes.set_aspect("equal")
    return figure


if __name__ == "__main__":  # so that tests can import this file; parwise needs no guard
    main()
