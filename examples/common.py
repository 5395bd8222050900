"""What the examples share: a command line, a clock and a comparison."""

import argparse
import time
from pathlib import Path

import numpy as np


def parse(script, description, argv=None):
    """Read the command line: where the picture goes, and whether to take a small part of the data.

    Parameters
    ----------
    script : str
        The example's ``__file__``; the picture is written beside it by default.
    description : str
        What the example does: its docstring.
    argv : list of str, optional
        The command line, if not that of this process.

    Returns
    -------
    argparse.Namespace
        With `picture` and `small`.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("picture", nargs="?", default=Path(script).with_suffix(".png"), help="PNG file to write")
    parser.add_argument("--small", action="store_true", help="a small part of it: a quick try")
    return parser.parse_args(argv)


def timed(func, *args, **kwargs):
    """Call a function; return its result and the seconds it took."""
    start = time.perf_counter()
    result = func(*args, **kwargs)
    return result, time.perf_counter() - start


def same_bits(a, b):
    """Whether two arrays agree in type, shape and every last bit."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def report(loop_time, parallel_time, same):
    """Print how the two ways compare."""
    print(f"plain loop  {loop_time:.2f} s")
    print(f"parallel    {parallel_time:.2f} s, the start of the workers included")
    print(f"speedup     {loop_time / parallel_time:.2f}")
    print(f"same bits   {same}")


def save(figure, picture):
    """Write a figure to a file, and say where."""
    figure.savefig(picture, dpi=100)
    print(f"picture     {picture}")
