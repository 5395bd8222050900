"""Take the noise out of a photograph: an image filter in blocks that see their neighbours.

Non-local means averages each pixel with those whose surroundings look alike. It works
on whole images, and so on blocks of rows too, if each block also sees the rows that
the filter reaches for: that is `depth`. What stands beyond the image's edge is for
`boundary` to say. The result has the bits of the filter over the whole image.

    python image_filter.py                    # writes image_filter.png beside this file
    python image_filter.py photo.png --small  # a smaller search window
"""

import numpy as np
from common import parse, report, same_bits, save, timed
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import correlate1d

from parwise import parallel_apply

NOISE = 0.1  # standard deviation; white is 1
PATCH = np.array([1, 2, 4, 2, 1]) / 10  # weights of a pixel's surroundings, along each axis


def load_photograph():
    """Read the portrait of Grace Hopper that comes with Matplotlib; white is 1."""
    with get_sample_data("grace_hopper.jpg") as file, Image.open(file) as photograph:
        return np.asarray(photograph) / 255


def non_local_means(image, reach, strength):
    """Average each pixel with those nearby whose surroundings look like its own.

    Parameters
    ----------
    image : ndarray, shape (rows, columns, colours)
    reach : int
        How far, in pixels, such others are looked for.
    strength : float
        Difference of surroundings at which a pixel counts a third.

    Returns
    -------
    ndarray, shaped like `image`
    """
    rows, columns, _ = image.shape
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    weight, total = np.zeros((rows, columns, 1)), np.zeros_like(image)
    for down in range(2 * reach + 1):
        for right in range(2 * reach + 1):
            other = padded[down : down + rows, right : right + columns]
            red, green, blue = np.moveaxis(image - other, 2, 0)
            difference = red * red + green * green + blue * blue
            difference = correlate1d(correlate1d(difference, PATCH, axis=0), PATCH, axis=1)
            alike = np.exp(-difference / strength**2)[:, :, np.newaxis]
            weight += alike
            total += alike * other
    return total / weight


def main(argv=None):
    """Filter the photograph as a whole and in blocks, compare, and draw it."""
    options = parse(__file__, __doc__, argv)
    clean = load_photograph()
    noisy = clean + np.random.default_rng(1).normal(scale=NOISE, size=clean.shape)
    reach = 1 if options.small else 6
    depth = reach + len(PATCH) // 2
    print(f"data        grace_hopper.jpg from Matplotlib, shape {clean.shape}, and noise on it")
    print(f"filter      non-local means, {2 * reach + 1} x {2 * reach + 1} pixels; depth {depth}")

    how = {"args": (reach, 1.6 * NOISE), "vectorized": True, "chunk": 75, "depth": depth}
    whole, loop_time = timed(non_local_means, noisy, *how["args"])
    blocks, parallel_time = timed(parallel_apply, non_local_means, noisy, **how)
    report(loop_time, parallel_time, same_bits(blocks, whole))
    before, after = (np.sqrt(np.mean((image - clean) ** 2)) for image in (noisy, blocks))
    print(f"error       {before:.3f} before, {after:.3f} after (root mean square)")
    save(draw(noisy, blocks), options.picture)


def draw(noisy, denoised):
    """The photograph before and after."""
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    panels = {"with noise": noisy, "non-local means": denoised}
    for axes, (title, image) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axes.imshow(image[:400, 60:420].clip(0, 1))
        axes.set_title(title)
        axes.set_axis_off()
    return figure


if __name__ == "__main__":  # so that tests can import this file; parwise needs no guard
    main()
