"""How much of the sky does each place on a map see? By a plain loop, then on all cores.

The sky-view factor of a pixel takes its horizon angle in 36 directions: some 100 us of
NumPy, and 89,238 pixels wait. The function is written for one pixel and stays so;
`parallel_apply` calls it for each of them, with the bits of the plain loop.

    python quickstart.py                   # writes quickstart.png beside this file
    python quickstart.py sky.png --step 8  # every eighth row and column: a quick try
"""

import argparse
import os
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.cbook import get_sample_data
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LightSource, ListedColormap, Normalize
from matplotlib.figure import Figure

from parwise import parallel_apply

DATA = "jacksboro_fault_dem.npz"
METRES_PER_DEGREE = np.pi / 180 * 6_371_000  # of latitude, on a sphere of the Earth's mean radius
RADIUS = 3_000.0  # metres; to look twice as far would lower the sky-view factor by 0.003, on average
AZIMUTHS = np.radians(np.arange(0, 360, 10))  # clockwise from north


class Terrain(NamedTuple):
    """An elevation model, northernmost row first.

    Attributes
    ----------
    elevation : ndarray of float64, shape (rows, columns)
        Metres above sea level.
    west, north : float
        Outer edges of the first column and row, in degrees.
    spacing : float
        From pixel to pixel, in degrees of longitude as of latitude.
    """

    elevation: np.ndarray
    west: float
    north: float
    spacing: float

    @property
    def cell_size(self):
        """Height and width of a pixel in metres, the width at the map's middle latitude."""
        middle = np.radians(self.north - self.spacing * len(self.elevation) / 2)
        height = METRES_PER_DEGREE * self.spacing
        return float(height), float(height * np.cos(middle))


def load_terrain():
    """Read the hills around the Jacksboro fault, Tennessee, that come with Matplotlib."""
    with get_sample_data(DATA) as dem:
        # The file's `ymin` is north of its `ymax`. It is `ymax` that is right, as the northern edge:
        # so the highest pixel falls on Cross Mountain, at 36.198 N 84.231 W.
        return Terrain(dem["elevation"].astype(float), float(dem["xmin"]), float(dem["ymax"]), float(dem["dy"]))


def elevation_at(elevation, row, column):
    """Elevation between pixel centres, by bilinear interpolation.

    Parameters
    ----------
    elevation : ndarray, shape (rows, columns)
        Metres.
    row, column : ndarray, both of one shape
        Positions in pixels, fractions and all.

    Returns
    -------
    ndarray, shaped like `row`
        Metres.
    """
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    south, east = row - top, column - left
    upper = (1 - east) * elevation[top, left] + east * elevation[top, left + 1]
    lower = (1 - east) * elevation[top + 1, left] + east * elevation[top + 1, left + 1]
    return (1 - south) * upper + south * lower


def sky_view_factor(pixel, elevation, cell_size, radius):
    """Share of the sky's hemisphere, by solid angle, that the terrain leaves free.

    Parameters
    ----------
    pixel : ndarray of int, shape (2,)
        Row and column.
    elevation : ndarray, shape (rows, columns)
        Metres.
    cell_size : tuple of float
        Height and width of a pixel in metres.
    radius : float
        How far to look, in metres.

    Returns
    -------
    float
        1 on a plain or a summit, towards 0 in a gorge.
    """
    row, column = pixel
    height, width = cell_size
    azimuth = AZIMUTHS[:, np.newaxis]
    distance = np.arange(width, radius, width / 2)
    north, east = distance * np.cos(azimuth), distance * np.sin(azimuth)
    sight_lines = elevation_at(elevation, row - north / height, column + east / width)
    slope = (sight_lines - elevation[row, column]) / distance
    horizon_angle = np.arctan(slope.max(axis=1)).clip(min=0)
    return 1 - np.sin(horizon_angle).mean()


def choose_pixels(terrain, radius, step):
    """Pixels, `step` apart, that have everything within the radius on the map.

    Returns
    -------
    ndarray of int, shape (rows, columns, 2)
        Row and column of each.
    """
    margins = np.ceil(radius / np.array(terrain.cell_size)).astype(int)
    rows, columns = (
        np.arange(margin + step // 2, length - margin, step)
        for margin, length in zip(margins, terrain.elevation.shape, strict=True)
    )
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)


def plain_loop(pixels, *args):
    """Sky-view factors by the loop that `parallel_apply` stands in for."""
    return np.array([[sky_view_factor(pixel, *args) for pixel in row] for row in pixels])


def timed(func, *args, **kwargs):
    """Call a function; return its result and the seconds it took."""
    start = time.perf_counter()
    result = func(*args, **kwargs)
    return result, time.perf_counter() - start


def same_bits(a, b):
    """Whether two arrays agree in type, shape and every last bit."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def draw(terrain, pixels, sky_view, picture):
    """Save the shaded elevation and the sky-view factor, side by side."""
    figure = Figure(figsize=(11, 4.75), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    draw_map(left, terrain, pixels, *shaded_elevation(terrain, pixels), "elevation (m), lit from the north-west")
    left.set_title("Cumberland Mountains, Tennessee")
    sky_colours = ScalarMappable(Normalize(sky_view.min(), 1), "bone")
    draw_map(right, terrain, pixels, sky_colours.to_rgba(sky_view), sky_colours, "sky-view factor (1: all of the sky)")
    right.set_title(f"Sky seen past the hills within {RADIUS / 1000:g} km")
    figure.savefig(picture, dpi=150)


def shaded_elevation(terrain, pixels):
    """Colours of the elevation at the pixels, lit by a sun in the north-west; and their unlit scale."""
    land = ListedColormap(matplotlib.colormaps["gist_earth"](np.linspace(0.3, 1, 256)))  # without its sea
    elevation, (height, width) = terrain.elevation, terrain.cell_size
    scale = ScalarMappable(Normalize(elevation.min(), elevation.max()), land)
    sun = LightSource(azdeg=315, altdeg=45)
    lit = sun.shade(elevation, land, scale.norm, blend_mode="soft", dx=width, dy=height)
    return lit[pixels[..., 0], pixels[..., 1]], scale


def draw_map(axes, terrain, pixels, colours, scale, label):
    """Draw one map true to shape, in degrees, with its colour bar."""
    height, width = terrain.cell_size
    axes.imshow(colours, extent=extent(terrain, pixels), aspect=height / width)
    axes.xaxis.set_major_formatter(lambda longitude, _: f"{-longitude:.2f}° W")
    axes.yaxis.set_major_formatter(lambda latitude, _: f"{latitude:.2f}° N")
    axes.locator_params(nbins=5)
    axes.figure.colorbar(scale, ax=axes, label=label, aspect=30)


def extent(terrain, pixels):
    """West, east, south and north of the chosen pixels in degrees, to their outer edges."""
    step = pixels[1, 1] - pixels[0, 0]
    top, left = pixels[0, 0] + 0.5 - step / 2
    bottom, right = pixels[-1, -1] + 0.5 + step / 2
    west, north, spacing = terrain.west, terrain.north, terrain.spacing
    return west + left * spacing, west + right * spacing, north - bottom * spacing, north - top * spacing


def describe(terrain, pixels):
    """Print what is computed, from what."""
    elevation, (height, width) = terrain.elevation, terrain.cell_size
    print(f"data        {DATA} from Matplotlib: elevation, {elevation.min():g} to {elevation.max():g} m,")
    print(f"            shape {elevation.shape}, pixels {width:.0f} m wide and {height:.0f} m high")
    print(f"sky view    {len(AZIMUTHS)} directions, {RADIUS:g} m far, at {pixels[..., 0].size} pixels")


def step_size(text):
    """Read a step that leaves a few rows and columns of the map."""
    if not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"must be 1 to 100, got {text}")
    return int(text)


def parse(argv):
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Sky-view factor of a map, by a plain loop and in parallel.")
    parser.add_argument("picture", nargs="?", default=Path(__file__).with_suffix(".png"), help="PNG file to write")
    parser.add_argument("--step", type=step_size, default=1, metavar="N", help="take every Nth row and column")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes [%(default)s]")
    return parser.parse_args(argv)


def main(argv=None):
    """Compute the sky-view factor both ways, compare, and draw it."""
    options = parse(argv)
    terrain = load_terrain()
    pixels = choose_pixels(terrain, RADIUS, options.step)
    describe(terrain, pixels)

    args = (terrain.elevation, terrain.cell_size, RADIUS)
    expected, loop_time = timed(plain_loop, pixels, *args)
    print(f"plain loop  {loop_time:.2f} s, {loop_time / expected.size * 1e6:.0f} us a pixel", flush=True)

    sky_view, parallel_time = timed(
        parallel_apply, sky_view_factor, pixels, axis=(0, 1), args=args, workers=options.workers
    )
    print(f"parallel    {parallel_time:.2f} s, the start of the workers included")
    print(f"workers     {options.workers}")
    print(f"speedup     {loop_time / parallel_time:.2f}")
    print(f"same bits   {same_bits(sky_view, expected)}: {sky_view.dtype}, shape {sky_view.shape}")

    draw(terrain, pixels, sky_view, options.picture)
    print(f"picture     {options.picture}")


if __name__ == "__main__":  # so that tests can import this file; parwise needs no guard
    main()
