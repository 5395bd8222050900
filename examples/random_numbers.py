"""How sure is a volatility model? A bootstrap whose random numbers do not depend on the workers.

A GARCH(1, 1) model is fitted to Google's daily returns, then to a thousand histories
that the fitted model might as well have written. Each of these draws from a random
generator of its own, which `rng=` hands out: seed 42 gives the same histories with
any number of workers, and in the plain loop.

    python random_numbers.py                    # writes random_numbers.png beside this file
    python random_numbers.py garch.png --small  # a few histories only
"""

import numpy as np
from common import parse, report, same_bits, save, timed
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure
from scipy.optimize import minimize
from scipy.signal import lfilter

from parwise import parallel_apply

SEED = 42


def variance(parameters, returns):
    """Variance of each day that the model expects of the days before.

    Parameters
    ----------
    parameters : tuple of float
        ``omega``, ``alpha`` and ``beta`` of ``v[t] = omega + alpha * r[t-1]**2 + beta * v[t-1]``.
    returns : ndarray, shape (days,)

    Returns
    -------
    ndarray, shape (days,)
    """
    omega, alpha, beta = parameters
    first = returns.var()
    return np.append(first, lfilter([1.0], [1.0, -beta], omega + alpha * returns[:-1] ** 2, zi=[beta * first])[0])


def fit(returns):
    """Parameters of highest likelihood: ``omega``, ``alpha``, ``beta``."""
    start = np.array([0.05 * returns.var(), 0.05, 0.9])

    def loss(scaled):
        parameters = scaled * start
        if parameters.min() < 0 or parameters[1] + parameters[2] >= 1:
            return np.inf
        v = variance(parameters, returns)
        return np.sum(np.log(v) + returns**2 / v)

    options = {"xatol": 1e-3, "fatol": 1e-3, "maxiter": 300}
    return minimize(loss, np.ones(3), method="Nelder-Mead", options=options).x * start


def refit(number, parameters, shocks, first, *, rng):
    """Fit a history that the model wrote.

    Parameters
    ----------
    number : int
        Which of them: not used, as the generator makes them differ.
    parameters : ndarray
        The model's.
    shocks : ndarray, shape (days,)
        Standardised returns, which are drawn from.
    first : float
        Variance of the first day.
    rng : numpy.random.Generator
        This history's own.

    Returns
    -------
    ndarray, shape (3,)
    """
    omega, alpha, beta = parameters
    returns = rng.choice(shocks, size=len(shocks))
    v = first
    for day, shock in enumerate(returns):
        returns[day] = np.sqrt(v) * shock
        v = omega + alpha * returns[day] ** 2 + beta * v
    return fit(returns)


def plain_loop(count, *args):
    """The bootstrap by a loop, with the generators that `rng=SEED` hands out."""
    seeds = np.random.SeedSequence(SEED).spawn(count)
    return np.asarray([refit(i, *args, rng=np.random.default_rng(seed)) for i, seed in enumerate(seeds)])


def main(argv=None):
    """Bootstrap both ways, compare, and draw it."""
    options = parse(__file__, __doc__, argv)
    with get_sample_data("goog.npz") as data:
        prices = data["price_data"]
    returns = 100 * np.diff(np.log(prices["adj_close"]))
    returns -= returns.mean()
    fitted = fit(returns)
    v = variance(fitted, returns)
    count = 16 if options.small else 1000
    print(f"data        goog.npz from Matplotlib: {len(returns)} daily returns, {prices['date'][0]} on")
    print(f"bootstrap   {count} histories")

    args = (fitted, returns / np.sqrt(v), v[0])
    expected, loop_time = timed(plain_loop, count, *args)
    found, parallel_time = timed(parallel_apply, refit, np.arange(count), args=args, rng=SEED)
    report(loop_time, parallel_time, same_bits(found, expected))
    save(draw(prices["date"][1:], returns, v, fitted, found), options.picture)


def draw(dates, returns, v, fitted, found):
    """The returns with their volatility, and what the bootstrap says of its persistence."""
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    left.plot(dates, returns, color="0.65", linewidth=0.6)
    for sign in (-2, 2):
        left.plot(dates, sign * np.sqrt(v), color="#b2182b", linewidth=1)
    left.set_title("Google's daily returns (%), and twice their volatility")
    persistence = found[:, 1] + found[:, 2]
    low, high = np.quantile(persistence, [0.025, 0.975])
    right.hist(persistence, bins=np.linspace(0.85, 1, 41), color="#92c5de")
    right.axvspan(low, high, color="#2166ac", alpha=0.15)
    right.axvline(fitted[1] + fitted[2], color="#b2182b")
    right.set_title(f"persistence {fitted[1] + fitted[2]:.2f}, 95 %: {low:.2f} to {high:.2f}")
    right.set_xlim(0.85, 1)
    right.set_xlabel(r"$\alpha + \beta$ of each history")
    return figure


if __name__ == "__main__":  # so that tests can import this file; parwise needs no guard
    main()
