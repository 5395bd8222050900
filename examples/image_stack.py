"""
A stack of images
=================

A stack is an array whose first axis numbers the images, such as the slices of a scan.
The function is written for one image: here it takes the noise out of a slice of a
brain scan by non-local means, and divides it into three classes of brightness.
`parallel_apply` calls it for each slice; the result is a stack again.

The data is ``data/brain.npz`` beside the script or the notebook; the page with all examples
has it to download.
"""

import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from skimage.filters import threshold_multiotsu
from skimage.restoration import denoise_nl_means

from parwise import parallel_apply

REACH = 9  # pixels: how far alike places are looked for; 2 is a quick try

here = Path(__file__).parent if "__file__" in globals() else Path()  # a notebook has no __file__
with np.load(here / "data" / "brain.npz") as data:
    slices, voxel = data["slices"], data["voxel_mm"]
print(f"stack       {slices.shape[0]} slices of {slices.shape[1]} x {slices.shape[2]} pixels, {slices.dtype}")

# %%
# The function, for one slice.


def classify(image):
    """Class of each pixel: 0 outside the head, then 1, 2, 3 from dark to bright."""
    smooth = denoise_nl_means(image / 1000, 5, REACH, h=0.03, fast_mode=False)
    classes = np.zeros(image.shape, np.uint8)
    head = smooth > 0.12
    classes[head] = 1 + np.digitize(smooth[head], threshold_multiotsu(smooth[head]))
    return classes


# %%
# Both ways.

print(f"machine     {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start")

start = time.perf_counter()
loop = np.array([classify(image) for image in slices])
loop_time = time.perf_counter() - start

start = time.perf_counter()
classes = parallel_apply(classify, slices)
parallel_time = time.perf_counter() - start

print(f"plain loop  {loop_time:.1f} s, {loop_time / len(slices):.2f} s a slice")
print(f"parallel    {parallel_time:.1f} s, with the start of the workers")
print(f"speed-up    {loop_time / parallel_time:.2f}")
print(f"same bits   {classes.tobytes() == loop.tobytes()}")

# %%
# Some slices with their classes, and how much of each class there is from the bottom to the top.

figure, panels = plt.subplot_mosaic(
    [[2, 7, 12, 17, "volume"], ["2c", "7c", "12c", "17c", "volume"]],
    figsize=(11, 4.8),
    layout="constrained",
    width_ratios=[1, 1, 1, 1, 1.7],
)
colours = plt.matplotlib.colors.ListedColormap(["black", "#3b6ea8", "#8fb8a6", "#f2c14e"])
for number in (2, 7, 12, 17):
    panels[number].imshow(slices[number, :, 26:102], cmap="gray")
    panels[number].set_title(f"slice {number}", fontsize=10)
    panels[f"{number}c"].imshow(classes[number, :, 26:102], cmap=colours, vmin=0, vmax=3, interpolation="nearest")
    panels[number].set_axis_off()
    panels[f"{number}c"].set_axis_off()
for kind, name in enumerate(("dark", "middle", "bright"), 1):
    volume = (classes == kind).sum(axis=(1, 2)) * voxel.prod() / 1000
    panels["volume"].plot(volume, color=colours(kind), linewidth=3, label=name)
panels["volume"].set_title("volume of each class (ml per slice)", fontsize=10)
panels["volume"].set_xlabel("slice")
panels["volume"].legend(frameon=False)
figure.savefig("image_stack.png", dpi=110)
print("picture     image_stack.png")
