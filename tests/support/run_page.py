"""Run the examples of a page of the documentation: ``python tests/support/run_page.py docs/guide/random.md``.

All ``python`` blocks of the page are one session, in an interpreter of its own, as if
typed there: what they define is in ``__main__``.
"""

from __future__ import annotations

import doctest
import multiprocessing
import sys
import warnings
from pathlib import Path


def examples_of(text):
    """Return the page with all but its Python blocks left blank, so that lines keep their numbers."""
    lines, inside = [], False
    for line in text.splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" if fence else inside
    return "\n".join(lines) + "\n"


def main(path):
    """Run one page; the exit status is 1 if the output of an example differs."""
    test = doctest.DocTestParser().get_doctest(examples_of(path.read_text()), {}, path.name, str(path), 0)
    test.globs = vars(sys.modules["__main__"])  # and no copy of it, where pickle would find no function
    # Dask warns of slow machines; Python 3.12 warns of a fork beside BLAS's threads, as multiprocessing makes it.
    warnings.filterwarnings("ignore", module=r"(dask|distributed)\b")
    warnings.filterwarnings("ignore", "This process", DeprecationWarning)
    multiprocessing.set_start_method("fork")  # not Python 3.14's way, which knows no function of a page
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, clear_globs=False)
    print(f"{path}: {runner.tries} examples, {runner.failures} failed")
    return int(runner.failures > 0 or not runner.tries)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
