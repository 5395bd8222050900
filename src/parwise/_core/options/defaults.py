"""Defaults for a whole process, which environment variables set."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Names of executors.
EXECUTORS = ("processes", "threads", "serial")
#: The variable of each option that has one.
VARIABLES = {"workers": "PARWISE_WORKERS", "executor": "PARWISE_EXECUTOR", "progress": "PARWISE_PROGRESS"}
PORTABLE = "portable"


class Defaults(NamedTuple):
    """What environment variables say; None and False where they say nothing.

    Attributes
    ----------
    portable : bool
        True if ``PARWISE_WORKERS`` names the portable workers.
    """

    workers: int | None = None
    portable: bool = False
    executor: str | None = None
    progress: bool = False


@functools.cache
def defaults() -> Defaults:
    """The defaults of this process: read once, and again after an error."""
    workers, executor, progress = (os.environ.get(name, "") for name in VARIABLES.values())
    if executor and executor not in EXECUTORS:
        raise _wrong("executor", executor, f"one of {', '.join(EXECUTORS)}")
    if progress not in ("", "0", "1"):
        raise _wrong("progress", progress, "1 for a bar, or 0")
    return Defaults(*parse_workers(workers), executor or None, progress == "1")


def has_no_gil() -> bool:
    """True if threads run Python code at the same time: an import may have brought back the GIL meanwhile."""
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is not None and not is_enabled()


def parse_workers(text: str) -> tuple[int | None, bool]:
    """The number of workers in ``PARWISE_WORKERS``, None if it has none, and True if it names the portable ones."""
    parts = [part.strip() for part in text.split(",")] if text else []
    numbers = [part for part in parts if part != PORTABLE]
    if len(numbers) > 1 or len(parts) - len(numbers) > 1 or not all(_is_number(part) for part in numbers):
        raise _wrong("workers", text, f"an int of at least 1, the word {PORTABLE}, or both (4,{PORTABLE})")
    return int(numbers[0]) if numbers else None, PORTABLE in parts


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0


def _wrong(option: str, text: str, allowed: str) -> ValueError:
    return ValueError(f"the environment variable {VARIABLES[option]} must be {allowed}, got {text!r}")


def name_variables(error: Exception, options: Mapping[str, Any]) -> None:
    """Add to the error of a call which of its options came from environment variables."""
    for name, variable in VARIABLES.items():
        value = os.environ.get(variable)
        if value and options.get(name) is None and variable not in str(error):
            error.add_note(f"{name} was not given, so the environment variable {variable}={value} set it")
