"""Levels of loggers, which decide what log records a process makes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple


class LogLevels(NamedTuple):
    """Levels of a process; those of loggers with their `disabled`, by name."""

    disable: int
    root: int
    loggers: dict[str, tuple[int, bool]]

    def apply(self, kept: Mapping[str, list[logging.Handler]]) -> None:
        """Set these levels, in a process that does nothing else.

        Loggers lose their handlers, which a module may have added during its import, except those in `kept`: the
        caller's handlers show the records.
        """
        logging.disable(self.disable)
        for name, logger in _loggers().items():
            level, disabled = self.loggers.get(name, (logging.NOTSET, False))
            logger.setLevel(level)
            logger.disabled = disabled
            if name not in kept:
                logger.handlers[:] = []
                logger.propagate = True
        logging.root.setLevel(self.root)
        _await_others(self.loggers)


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


def _await_others(levels: dict[str, tuple[int, bool]]) -> None:
    """Have loggers that do not exist yet get their levels once they do.

    To make them here would be too early: a library may have a class of its own for its loggers.
    """
    loggers = logging.root.manager.loggerDict
    if not isinstance(loggers, _LateLoggers):
        loggers = logging.root.manager.loggerDict = _LateLoggers(loggers)
    loggers.levels = {name: one for name, one in levels.items() if not isinstance(loggers.get(name), logging.Logger)}


class _LateLoggers(dict[str, Any]):
    """The loggers of a process by name; new ones get the levels that wait for them."""

    levels: dict[str, tuple[int, bool]]

    def __setitem__(self, name: str, logger: Any) -> None:
        super().__setitem__(name, logger)
        if isinstance(logger, logging.Logger) and name in self.levels:
            level, logger.disabled = self.levels.pop(name)
            logger.setLevel(level)
