"""Where should three fire lookouts stand to see most of the hills? SciPy asks, all cores answer.

`scipy.optimize.differential_evolution` takes the function that it maps its candidates
with as ``workers=``, and `parallel_map` is such a function. The answer does not depend
on it: same bits, generation by generation.

    python scipy_optimize.py                    # writes scipy_optimize.png beside this file
    python scipy_optimize.py three.png --small  # two generations
"""

import numpy as np
from common import parse, report, same_bits, save, timed
from matplotlib.cbook import get_sample_data
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from scipy.optimize import differential_evolution

from parwise import parallel_map

THIN = 2  # every second row and column of the map
CELL = 80.0 * THIN  # metres, about: the map's pixels are 74 m wide and 93 m high
TOWER = 30.0  # metres above ground
RANGE = 15_000.0  # metres
AZIMUTHS = np.radians(np.arange(0, 360, 0.5))


def load_hills():
    """Read the elevation around the Jacksboro fault, Tennessee, that comes with Matplotlib."""
    with get_sample_data("jacksboro_fault_dem.npz") as data:
        return data["elevation"][::THIN, ::THIN].astype(float)


def seen_from(row, column, elevation):
    """Which places can be seen from a tower.

    Parameters
    ----------
    row, column : int
        Where it stands.
    elevation : ndarray, shape (rows, columns)
        Metres.

    Returns
    -------
    ndarray of bool, shaped like `elevation`
    """
    distance = np.arange(1, RANGE / CELL)
    rows = np.rint(row + distance * np.cos(AZIMUTHS)[:, np.newaxis]).astype(int)
    columns = np.rint(column + distance * np.sin(AZIMUTHS)[:, np.newaxis]).astype(int)
    inside = (rows >= 0) & (rows < elevation.shape[0]) & (columns >= 0) & (columns < elevation.shape[1])
    rows, columns = rows.clip(0, elevation.shape[0] - 1), columns.clip(0, elevation.shape[1] - 1)
    slope = (elevation[rows, columns] - elevation[row, column] - TOWER) / distance
    free = inside & (slope >= np.maximum.accumulate(slope, axis=1))
    seen = np.zeros(elevation.shape, bool)
    seen[rows[free], columns[free]] = True
    seen[row, column] = True
    return seen


def seen_from_all(places, elevation):
    """Which places can be seen from one of the towers."""
    pairs = np.reshape(places, (-1, 2)).astype(int)
    return np.logical_or.reduce([seen_from(*pair, elevation) for pair in pairs])


def hidden_share(places, elevation):
    """Share of the map that no tower sees."""
    return 1 - seen_from_all(places, elevation).mean()


def search(elevation, generations, workers):
    """Places of three towers that leave least hidden."""
    rows, columns = np.array(elevation.shape) - 1
    return differential_evolution(
        hidden_share,
        [(0, rows), (0, columns)] * 3,
        args=(elevation,),
        workers=workers,
        updating="deferred",
        integrality=np.ones(6, bool),
        popsize=8,
        maxiter=generations,
        tol=0,
        polish=False,
        rng=7,
    )


def main(argv=None):
    """Search both ways, compare, and draw what is seen."""
    options = parse(__file__, __doc__, argv)
    elevation = load_hills()
    generations = 2 if options.small else 25
    print(f"data        jacksboro_fault_dem.npz from Matplotlib, shape {elevation.shape}")
    expected, loop_time = timed(search, elevation, generations, map)
    found, parallel_time = timed(search, elevation, generations, parallel_map)
    print(f"search      {found.nfev} candidates in {found.nit} generations")
    report(loop_time, parallel_time, same_bits(found.x, expected.x) and found.fun == expected.fun)
    print(f"seen        {1 - found.fun:.1%} of the map")
    save(draw(elevation, found.x), options.picture)


def draw(elevation, places):
    """The hills, lit, with what is seen in colour."""
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    axes = figure.subplots()
    shade = LightSource(315, 45).hillshade(elevation, vert_exag=2, dx=CELL, dy=CELL)
    axes.imshow(shade, cmap="gray", vmin=-0.3)
    seen = seen_from_all(places, elevation)
    axes.imshow(np.ma.masked_where(~seen, elevation), cmap="autumn", alpha=0.45)
    rows, columns = np.reshape(places, (-1, 2)).T
    axes.plot(columns, rows, "^", color="white", markeredgecolor="black", markersize=13)
    axes.set_title(f"Three lookouts see {seen.mean():.0%} of the hills, {RANGE / 1000:g} km far")
    axes.set_axis_off()
    return figure


if __name__ == "__main__":  # so that tests can import this file; parwise needs no guard
    main()
