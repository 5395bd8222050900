"""How does a kayak get out to sea? A decorator is all it takes to ask that for many places at once.

`sea_route` finds the shortest way from one place to the open ocean, over water that
is deep enough, or gives None where there is none. With `@parallel` it stays the
function that it is, and `sea_route.parallel(places, deep)` asks it for each place, on
all cores; the places without a way out are left out.

    python decorator_routes.py                     # writes decorator_routes.png beside this file
    python decorator_routes.py routes.png --small  # a few places only
"""

import heapq
import itertools
from collections import Counter

import numpy as np
from common import parse, report, save, timed
from matplotlib.cbook import get_sample_data
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from parwise import parallel

DRAUGHT = 0.3  # metres: a kayak
STEPS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


@parallel
def sea_route(place, deep):
    """Shortest way from a place to the western edge of the map, the ocean.

    Parameters
    ----------
    place : tuple of int
        Row and column.
    deep : ndarray of bool, shape (rows, columns)
        Where a boat can go; southernmost row first.

    Returns
    -------
    list of tuple of int, or None
        Rows and columns on the way, or None if there is no way.
    """
    if not deep[place]:
        return None
    came_from, done, ahead = {place: None}, set(), [(0.0, place)]
    cost = {place: 0.0}
    while ahead:
        so_far, here = heapq.heappop(ahead)
        if here in done:
            continue
        done.add(here)
        row, column = here
        if column == 0:
            return way_to(here, came_from)
        for down, right in STEPS:
            there = row + down, column + right
            if there in done or not (0 <= there[0] < deep.shape[0] and there[1] < deep.shape[1] and deep[there]):
                continue
            length = so_far + (down * down + right * right) ** 0.5
            if length < cost.get(there, np.inf):
                cost[there], came_from[there] = length, here
                heapq.heappush(ahead, (length, there))
    return None


def way_to(place, came_from):
    """The places that lead to a place, first to last."""
    way = []
    while place is not None:
        way.append(place)
        place = came_from[place]
    return way[::-1]


def main(argv=None):
    """Find all ways both ways, compare, and draw them."""
    options = parse(__file__, __doc__, argv)
    with get_sample_data("topobathy.npz") as data:
        height, longitude, latitude = data["topo"], data["longitude"] - 360, data["latitude"]
    deep = height < -DRAUGHT
    step = 12 if options.small else 3
    places = [(i, j) for i in range(0, len(latitude), step) for j in range(0, len(longitude), step)]
    print(f"data        topobathy.npz from Matplotlib: the Salish Sea, shape {height.shape}")
    print(f"places      {len(places)}, on land too")

    def plain_loop():
        ways = [sea_route(place, deep) for place in places]
        return [way for way in ways if way is not None]

    y_serial, loop_time = timed(plain_loop)
    y_parallel, parallel_time = timed(sea_route.parallel, places, deep)
    report(loop_time, parallel_time, y_serial == y_parallel)
    print(f"ways out    {len(y_parallel)}")
    save(draw(height, longitude, latitude, y_parallel), options.picture)


def draw(height, longitude, latitude, ways):
    """The map, with all ways on it: the broader, the more come by."""
    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    axes = figure.subplots()
    water = np.ma.masked_where(height >= 0, -height)
    axes.set_facecolor("#d9cfb8")
    depths = axes.pcolormesh(longitude, latitude, water, cmap="Blues", vmin=-100, vmax=400, alpha=0.8)
    axes.contour(longitude, latitude, height, [0], colors="#6b5d3f", linewidths=0.7)
    traffic = Counter(step for way in ways for step in itertools.pairwise(way))
    lines = [[(longitude[j], latitude[i]) for i, j in step] for step in traffic]
    widths = 0.25 * np.sqrt(list(traffic.values()))
    axes.add_collection(LineCollection(lines, linewidths=widths.clip(max=5), colors="#b2182b", capstyle="round"))
    figure.colorbar(depths, ax=axes, label="depth (m)", extend="max", aspect=30).ax.set_ylim(0, 400)
    axes.set_title(f"The way out to sea from {len(ways)} places, for a kayak")
    axes.locator_params(nbins=5)
    axes.set_aspect(1 / np.cos(np.radians(latitude.mean())))
    axes.xaxis.set_major_formatter(lambda value, _: f"{-value:.1f}° W")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.1f}° N")
    return figure


if __name__ == "__main__":  # so that tests can import this file; parwise needs no guard
    main()
