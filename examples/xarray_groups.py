"""When did shares move together? A question for each year of an xarray DataArray.

`together` takes one year of monthly returns and gives the mean correlation between
companies, with what chance alone would give: the same returns in other orders, each
drawn from the year's own random generator. `map_groups` asks it for each year, as
`groupby(...).map(...)` does.

    python xarray_groups.py                    # writes xarray_groups.png beside this file
    python xarray_groups.py years.png --small  # few orders only
"""

import csv

import numpy as np
import xarray as xr
from common import parse, report, same_bits, save, timed
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure

import parwise.xarray  # noqa: F401 - gives DataArray its .par

SEED = 3
NAMES = ["IBM", "AAPL", "MSFT", "XRX", "AMZN", "ADBE"]  # there since 1998


def load_returns():
    """Read the monthly prices that come with Matplotlib, as returns from 1998 on."""
    with get_sample_data("Stocks.csv") as file:
        lines = (line for line in file if not line.startswith("#"))
        rows = [row for row in csv.DictReader(lines) if all(row[name] for name in NAMES)]
    dates = np.array([row["Date"] for row in rows], "datetime64[ns]")
    prices = np.array([[float(row[name]) for name in NAMES] for row in rows])
    first_of_month = dates.astype("datetime64[M]") == dates.astype("datetime64[D]")  # the last row is of mid-month
    prices = xr.DataArray(prices, {"date": dates, "name": NAMES}, ("date", "name"), "price")[first_of_month]
    returns = np.log(prices).diff("date")
    return returns.sel(date=slice("1998", None))


def together(year, count, *, rng):
    """Mean correlation between companies, and what chance would give.

    Parameters
    ----------
    year : DataArray, dimensions date and name
        Returns.
    count : int
        How many random orders to compare with.
    rng : numpy.random.Generator
        This year's own.

    Returns
    -------
    DataArray, dimension what
        The mean correlation, and the middle and the 95 % point of chance.
    """
    values = year.to_numpy()
    above = np.triu_indices(values.shape[1], 1)
    chance = [np.corrcoef(rng.permuted(values, axis=0), rowvar=False)[above].mean() for _ in range(count)]
    found = np.corrcoef(values, rowvar=False)[above].mean()
    return xr.DataArray([found, *np.quantile(chance, [0.5, 0.95])], {"what": ["found", "middle", "high"]}, "what")


def plain_loop(returns, count):
    """The same by xarray's own loop, with the generators that `rng=SEED` hands out."""
    groups = returns.groupby("date.year")
    seeds = iter(np.random.SeedSequence(SEED).spawn(len(groups)))
    return groups.map(lambda year: together(year, count, rng=np.random.default_rng(next(seeds))))


def main(argv=None):
    """Ask for each year both ways, compare, and draw it."""
    options = parse(__file__, __doc__, argv)
    returns = load_returns()
    count = 50 if options.small else 5000
    print(f"data        Stocks.csv from Matplotlib: {dict(returns.sizes)}")
    expected, loop_time = timed(plain_loop, returns, count)
    found, parallel_time = timed(returns.par.map_groups, together, "date.year", args=(count,), rng=SEED)
    report(loop_time, parallel_time, same_bits(found, expected))
    save(draw(found), options.picture)


def draw(found):
    """Correlations year by year, above what chance gives."""
    figure = Figure(figsize=(8.5, 3.9), layout="constrained")
    axes = figure.subplots()
    correlation, middle, high = (found.sel(what=what) for what in ("found", "middle", "high"))
    clear = (correlation > high).to_numpy()
    axes.bar(found.year, correlation, color=np.where(clear, "#b2182b", "#bbbbbb"))
    chance = {"ymin": middle, "ymax": high, "color": "#2166ac", "linewidth": 3}
    axes.vlines(found.year, **chance, label="by chance: half to 95 % of all orders")
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_ylim(top=0.8)
    axes.set_title("Mean correlation of monthly returns, year by year")
    axes.set_xlabel(f"{', '.join(NAMES)} (red: more than by chance)")
    axes.legend(frameon=False, loc="upper left")
    return figure


if __name__ == "__main__":  # so that tests can import this file; parwise needs no guard
    main()
