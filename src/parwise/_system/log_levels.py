"""Levels of loggers, which decide what log records a process makes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from .late_imports import when_imported


class LogLevels(NamedTuple):
    """Levels of a process; those of loggers with their `disabled`, by name."""

    disable: int
    root: int
    loggers: dict[str, tuple[int, bool]]

    def apply(self, kept: Mapping[str, Any]) -> None:
        """Set these levels, in a process that does nothing else.

        Loggers lose their handlers, which a module may have added during its import, except those in `kept`: the
        caller's handlers show the records.
        """
        # Only what differs: each `setLevel` empties the caches of all loggers.
        if logging.root.manager.disable != self.disable:
            logging.disable(self.disable)
        for name, logger in _loggers().items():
            self._set(name, logger, name in kept)
        if logging.root.level != self.root:
            logging.root.setLevel(self.root)
        self._await_others(kept)

    def _set(self, name: str, logger: logging.Logger, kept: bool) -> None:
        level, logger.disabled = self.loggers.get(name, (logging.NOTSET, False))
        if logger.level != level:
            logger.setLevel(level)
        if not kept:
            logger.handlers[:] = []
            logger.propagate = True

    def _await_others(self, kept: Mapping[str, Any]) -> None:
        """Have loggers that do not exist yet get their levels once they do.

        To make them here would be too early: a library may have a class of its own for its loggers, which it names
        after itself. A level that it sets during its import is replaced, too.
        """
        loggers = logging.root.manager.loggerDict
        if not isinstance(loggers, _LateLoggers):
            loggers = logging.root.manager.loggerDict = _LateLoggers(loggers)
        waiting = {name: one for name, one in self.loggers.items() if not isinstance(loggers.get(name), logging.Logger)}
        loggers.levels, loggers.state = waiting, (self, kept)
        for package in {name.partition(".")[0] for name in waiting} - loggers.packages:
            if package not in sys.modules:  # one by one: a difference of sets would go through all modules, for 70 us
                loggers.packages.add(package)
                when_imported(package, partial(loggers.set_again, package))


def read_log_levels() -> LogLevels:
    """Levels of this process."""
    waiting = getattr(logging.root.manager.loggerDict, "levels", {})
    found = {name: (one.level, one.disabled) for name, one in _loggers().items() if one.level or one.disabled}
    return LogLevels(logging.root.manager.disable, logging.root.level, {**waiting, **found})


def read_handlers() -> dict[str, list[logging.Handler]]:
    """Handlers of the loggers of this process, by name, except those of the root."""
    return {name: list(logger.handlers) for name, logger in _loggers().items() if logger.handlers}


def _loggers() -> dict[str, logging.Logger]:
    loggers = list(logging.root.manager.loggerDict.items())
    return {name: logger for name, logger in loggers if isinstance(logger, logging.Logger)}


class _LateLoggers(dict[str, Any]):
    """The loggers of a process by name; new ones get the levels that wait for them."""

    def __init__(self, loggers: dict[str, Any]) -> None:
        super().__init__(loggers)
        self.levels: dict[str, tuple[int, bool]] = {}
        # The state that was set last, and loggers that keep their handlers.
        self.state: tuple[LogLevels, Mapping[str, Any]] | None = None
        self.packages: set[str] = set()

    def __setitem__(self, name: str, logger: Any) -> None:
        super().__setitem__(name, logger)
        if isinstance(logger, logging.Logger) and name in self.levels:
            level, logger.disabled = self.levels.pop(name)
            logger.setLevel(level)

    def set_again(self, package: str) -> None:
        """Set the levels of a package that has just been imported."""
        if self.state is not None:
            levels, kept = self.state
            for name, logger in _loggers().items():
                if name.partition(".")[0] == package:
                    levels._set(name, logger, name in kept)
