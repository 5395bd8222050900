"""Levels of loggers that do not exist in a worker yet."""

from __future__ import annotations

import logging
import sys

import pytest

from parwise import Pool, parallel_map

from ..support.functions import ISOLATED

LIBRARY = """
import logging
class OwnLogger(logging.Logger):
    def setup(self):
        self.setLevel(logging.INFO)
        self.addHandler(logging.StreamHandler())
        self.extra = 1
logging.setLoggerClass(OwnLogger)
log = logging.getLogger("own_logger")
child = logging.getLogger("own_logger.child")
logging.setLoggerClass(logging.Logger)
log.setup()
def see(k=0):
    return type(log).__name__, log.level, child.level, child.getEffectiveLevel(), len(log.handlers), log.extra
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library with a class of its own for its loggers, as astropy."""
    (tmp_path / "own_logger.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_logger

    yield own_logger
    del sys.modules["own_logger"]
    for name in ("own_logger", "own_logger.child"):
        logging.root.manager.loggerDict.pop(name)


WAYS = {
    "isolated": lambda f, pool: parallel_map(f, range(4), **ISOLATED),
    "pool": lambda f, pool: parallel_map(f, range(4), executor=pool, isolate=True),
    "submit": lambda f, pool: [pool.submit(f, 0).result()],
    "imap": lambda f, pool: list(pool.imap(f, range(4), isolate=True)),
}


@pytest.mark.parametrize("way", WAYS)
def test_library_with_its_own_logger_class(library, way):
    """It is imported after the levels were carried."""

    def see(k):
        import own_logger

        return own_logger.see()

    with Pool(2) as pool:
        logging.getLogger("own_logger").setLevel(logging.WARNING)
        logging.getLogger("own_logger.child").setLevel(logging.DEBUG)
        # Handlers of the caller show what workers log.
        expected = (*library.see()[:4], 0, 1)
        for _ in range(2):
            assert set(WAYS[way](see, pool)) == {expected}
        logging.getLogger("own_logger").setLevel(logging.ERROR)
        assert set(WAYS[way](see, pool)) == {("OwnLogger", logging.ERROR, *expected[2:])}


@pytest.mark.parametrize("way", WAYS)
def test_logger_that_comes_to_be_in_the_function(way, pool):
    logging.getLogger("parwise.late").setLevel(logging.DEBUG)
    logging.getLogger("parwise.late.off").disabled = True
    try:
        found = WAYS[way](lambda k: (logging.getLogger("parwise.late").level, see_off()), pool)
        assert set(found) == {(logging.DEBUG, True)}
    finally:
        logging.getLogger("parwise.late").setLevel(logging.NOTSET)
        logging.getLogger("parwise.late.off").disabled = False


def see_off():
    return logging.getLogger("parwise.late.off").disabled
