"""
A filter over one large image
=============================

A wide median filter finds the background of an astronomical image; what stands out of
it are stars and galaxies. The filter works on whole images. `parallel_apply` with
``vectorized=True`` cuts the image into blocks of rows, and ``depth`` says how many rows
beyond its own each block must see: half the size of the filter. The blocks then make
the result of the whole image, bit by bit.
"""

import os
import time

import matplotlib.pyplot as plt
from scipy.ndimage import label, median_filter
from skimage.data import hubble_deep_field

from parwise import parallel_apply

SIZE = 25  # pixels, odd; 5 is a quick try

image = hubble_deep_field()  # comes with scikit-image
light = image.mean(axis=2)
print(f"image       Hubble Ultra Deep Field, {light.shape[0]} x {light.shape[1]} pixels")
print(f"machine     {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start")

# %%
# Both ways. ``boundary`` repeats the image at its edges as the filter itself does: what SciPy calls "reflect"
# is NumPy's "symmetric".

start = time.perf_counter()
whole = median_filter(light, SIZE)
whole_time = time.perf_counter() - start

start = time.perf_counter()
background = parallel_apply(
    median_filter, light, args=(SIZE,), vectorized=True, chunk=218, depth=SIZE // 2, boundary="symmetric"
)
parallel_time = time.perf_counter() - start

print(f"whole image {whole_time:.1f} s")
print(f"in blocks   {parallel_time:.1f} s, with the start of the workers")
print(f"speed-up    {whole_time / parallel_time:.2f}")
print(f"same bits   {background.tobytes() == whole.tobytes()}")

# %%
# The image, its background, and what stands out.

_, count = label(light - background > 40)
figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
shown = {"image": image, "background": background, f"what stands out: {count} places": light - background}
for axes, (title, picture) in zip(panels, shown.items(), strict=True):
    axes.imshow(picture, cmap="magma", vmin=0, vmax=60)
    axes.set_title(title)
    axes.set_axis_off()
figure.savefig("image_filter.png", dpi=110)
print("picture     image_filter.png")
