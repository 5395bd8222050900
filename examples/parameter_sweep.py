"""
A parameter sweep
=================

In January 1978 influenza went through a boarding school of 763 boys in the north of
England. The school wrote down how many were in bed on each day. Which infection rate
and which recovery rate fit? The function solves the equations of the epidemic for one
pair of rates with `scipy.integrate.solve_ivp`, and returns its misfit. `parallel_apply`
calls it for each pair of a grid.

The numbers are those of the British Medical Journal, 4 March 1978, page 587.
"""

import os
import time

import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp

from parwise import parallel_apply

SIZE = 60  # rates of each kind; 8 is a quick try

IN_BED = np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4])
DAYS = np.arange(len(IN_BED))
BOYS = 763

# %%
# The function, for one pair of rates.


def epidemic(infection, recovery, days):
    """Boys in bed on some days, by the model of Kermack and McKendrick."""

    def change(_, state):
        healthy, ill = state
        infected = infection * healthy * ill / BOYS
        return -infected, infected - recovery * ill

    start = BOYS - IN_BED[0], IN_BED[0]
    return solve_ivp(change, (0, days[-1]), start, t_eval=days, rtol=1e-6).y[1]


def misfit(rates):
    """Root mean square difference from the school's numbers."""
    return np.sqrt(np.mean((epidemic(*rates, DAYS) - IN_BED) ** 2))


# %%
# Both ways, over a grid of shape (SIZE, SIZE, 2). ``axis=(0, 1)`` names the axes that are mapped over:
# the function gets ``grid[i, j]``, one pair.

infection, recovery = np.linspace(1.2, 2.4, SIZE), np.linspace(0.2, 0.8, SIZE)
grid = np.stack(np.meshgrid(infection, recovery, indexing="ij"), axis=-1)
print(f"sweep       {SIZE} x {SIZE} pairs of rates")
print(f"machine     {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the start")

start = time.perf_counter()
loop = np.array([[misfit(rates) for rates in row] for row in grid])
loop_time = time.perf_counter() - start

start = time.perf_counter()
found = parallel_apply(misfit, grid, axis=(0, 1))
parallel_time = time.perf_counter() - start

print(f"plain loop  {loop_time:.1f} s, {loop_time / loop.size * 1e3:.1f} ms a pair")
print(f"parallel    {parallel_time:.1f} s, with the start of the workers")
print(f"speed-up    {loop_time / parallel_time:.2f}")
print(f"same bits   {found.tobytes() == loop.tobytes()}")

best = grid[np.unravel_index(found.argmin(), found.shape)]
print(f"best        infection {best[0]:.2f} and recovery {best[1]:.2f} a day: each boy infects {best[0] / best[1]:.1f}")

# %%
# The misfit of each pair, and the best curve.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
levels = left.contourf(infection, recovery, found.T, levels=30, cmap="viridis_r")
figure.colorbar(levels, ax=left, label="misfit (boys)", aspect=30)
left.plot(*best, "+", color="black", markersize=14, markeredgewidth=2)
left.set(xlabel="infection rate (per day)", ylabel="recovery rate (per day)", title="Which rates fit?")
fine = np.linspace(0, DAYS[-1], 200)
right.plot(fine, epidemic(*best, fine), color="#d95f02", linewidth=2.5, label="best pair")
right.plot(DAYS, IN_BED, "o", color="#1b9e77", markersize=7, label="school, 1978")
right.set(xlabel="day", title="Boys in bed")
right.legend(frameon=False)
figure.savefig("parameter_sweep.png", dpi=110)
print("picture     parameter_sweep.png")
