"""Warnings of tasks in a process that has other work too: each task has filters of its own.

Up to Python 3.13, and by default in later ones with the GIL, `warnings.catch_warnings` changes the filters of the whole
process: of two threads that use it the last to leave would put back the filters of the other. For a task it changes
those of the task alone while the hooks are there. Where Python does that itself (`sys.flags.context_aware_warnings`,
the default without the GIL from 3.14 on) it is left to Python.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

#: True if Python keeps filters for each context.
AWARE = bool(getattr(sys.flags, "context_aware_warnings", False))
_wm: Any = warnings


class Scope(NamedTuple):
    """What `warnings.catch_warnings` keeps for a ``with`` block.

    Attributes
    ----------
    filters : list or None
        None until they are known: then all warnings are taken.
    shown : set
        Warnings that have been shown: of repeated ones Python shows the first.
    log : list or None
        Where warnings go that a block records.
    """

    filters: list[Any] | None
    shown: set[tuple[Any, ...]]
    log: list[Any] | None


class TaskWarnings:
    """The warnings of one task; `add` gets those that are to be shown, as `warnings.showwarning` does."""

    def __init__(self, add: Callable[..., None]) -> None:
        self._add = add
        #: The blocks that the task is in, with one for the task itself.
        self.scopes = [Scope(None, set(), None)]
        self._known = False
        # For each context of Python's own: the context, so that no other gets its id, and what it has shown.
        self._contexts: dict[int, tuple[Any, set[tuple[Any, ...]]]] = {}
        self._outer_log: list[Any] | None = None

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """Take the warnings of this context; where Python keeps filters for each, all pass."""
        before = _current.get()
        try:
            try:
                _current.set(self)
                if not AWARE:
                    yield
                    return
                with warnings.catch_warnings():
                    self._outer_log = _wm._get_context().log
                    _wm._get_filters().insert(0, _FILTER)
                    _wm._filters_mutated()
                    yield
            finally:
                _current.set(before)
        finally:
            _current.set(before)  # again, if an interrupt came during it

    def follow(self, filters: list[Any]) -> None:
        """From now on, do with warnings what these filters say."""
        self._known = True
        if AWARE:
            _wm._get_filters()[:] = [_FILTER, *filters]
            _wm._filters_mutated()
        else:
            self.replace_filters(list(filters))

    def replace_filters(self, filters: list[Any]) -> None:
        """Have other filters in the present block; what was shown is forgotten, as Python does."""
        self.scopes = [*self.scopes[:-1], Scope(filters, set(), self.scopes[-1].log)]
        if len(self.scopes) > 1:
            _wm._filters_mutated()

    def add_filter(self, item: tuple[Any, ...], append: bool) -> None:
        """Add a filter in the present block, as `warnings._add_filter` does."""
        filters = self.scopes[-1].filters or []
        if append and item in filters:
            return
        rest = [one for one in filters if one != item]
        self.replace_filters([*rest, item] if append else [item, *rest])

    @property
    def _scope(self) -> Scope:
        if not AWARE:
            return self.scopes[-1]
        context = _wm._get_context()
        _, shown = self._contexts.setdefault(id(context), (context, set()))
        log = None if context.log is self._outer_log else context.log
        filters = [one for one in _wm._get_filters() if one is not _FILTER]
        return Scope(filters if self._known else None, shown, log)

    def show(
        self, message: Any, category: Any, filename: str, lineno: int, own: Callable[..., Any] | None = None
    ) -> None:
        """Do with a warning what the filters say; the function may have a `showwarning` of its own."""
        scope = self._scope
        action = "always" if scope.filters is None else _action(scope.filters, message, category, filename, lineno)
        if action == "error":
            raise message
        key = str(message), category, filename, lineno
        if action == "ignore" or (action in ("default", "module", "once") and key in scope.shown):
            return
        scope.shown.add(key)
        if scope.log is not None:
            scope.log.append(warnings.WarningMessage(message, category, filename, lineno))
        elif own is not None:
            own(message, category, filename, lineno)
        else:
            self._add(message, category, filename, lineno)


def _action(filters: list[Any], message: Any, category: Any, filename: str, lineno: int) -> str:
    """What filters say of a warning, as `warnings.warn_explicit` reads them."""
    text = str(message)
    for action, of_text, kind, of_module, line in filters:
        fits = issubclass(category, kind) and line in (0, lineno) and _matches(of_text, text)
        if fits and (of_module is None or _matches(of_module, module_name(filename))):
            return str(action)
    return "default"


def _matches(pattern: Any, text: str) -> bool:
    """Python's own first filters have strings for patterns."""
    return pattern is None or (pattern == text if isinstance(pattern, str) else bool(pattern.match(text)))


def module_name(filename: str) -> str:
    """Name of the module that warns: that of the function in `filename` which is being called."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename != filename:
        frame = frame.f_back  # type: ignore[assignment]
    return filename.removesuffix(".py") if frame is None else str(frame.f_globals.get("__name__", "<string>"))


#: The warnings of the task in the current context.
_current: ContextVar[TaskWarnings | None] = ContextVar("parwise_warnings", default=None)


class _InTask:
    """Stands for the pattern of a filter: it matches all warnings of tasks, and no other ones.

    `match` runs no Python code: ``next(iter(get, ...), text)`` calls ``_current.get(None)``. While Python code runs,
    another thread may replace `warnings.filters`, and CPython would go on to read the freed list.
    """

    def __init__(self) -> None:
        self.match = partial(next, iter(partial(_current.get, None), object()))
        # Others copy filters by their patterns, as scikit-learn does for its own threads: a copy matches nothing.
        self.pattern = "(?!)"

    def __reduce__(self) -> str:
        """Another process has one of its own, if a caller in this process sends its filters there."""
        return "_in_task"


_in_task = _InTask()
_FILTER: Any = ("always", _in_task, Warning, None, 0)


class WarningHooks:
    """Has warnings of tasks pass the filters of this process, and go to their `TaskWarnings`."""

    def __init__(self) -> None:
        # `warnings.showwarning` as the hooks have found it.
        self._found: Any = None
        self._replaced: list[tuple[Any, str, Any, Any]] = []
        # Lists of filters that let warnings of tasks pass, by their ids: those that `catch_warnings` of other threads
        # keeps are put back later, maybe after the hooks have gone.
        self._lists: dict[int, list[Any]] = {}
        # Another thread may be within a hook while the hooks go; a signal handler may warn within it. No function of
        # `warnings` is called under it, as those have a lock of their own from Python 3.14 on.
        self._lock = threading.RLock()

    def install(self) -> None:
        """Put the hooks in their places."""
        self._found = _wm.showwarning
        # Not `showwarning`: `catch_warnings` in another thread, which records, would take that away meanwhile.
        self._replace(_wm, "_showwarnmsg", self._showing(_wm._showwarnmsg))
        if not AWARE:
            # A block that another thread has entered before leaves by Python's own way, which calls these.
            for name in ("_filters_mutated", "_filters_mutated_lock_held"):
                if hasattr(_wm, name):
                    self._replace(_wm, name, self._mutating(getattr(_wm, name)))
            block = _wm.catch_warnings
            self._replace(block, "__enter__", self._entering(block.__enter__))
            self._replace(block, "__exit__", self._leaving(block.__exit__))
            self._replace(_wm, "_add_filter", _adding(_wm._add_filter))
            self._replace(_wm, "resetwarnings", _resetting(_wm.resetwarnings))

    def _replace(self, owner: Any, name: str, hook: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name), hook))
        setattr(owner, name, hook)

    def let_pass(self, forget: bool = False) -> None:
        """Make sure that warnings of tasks pass the filters of this process, whatever other threads do with them.

        Have Python `forget` which warnings it has shown, where the tasks are another process's: theirs would not be
        seen. The caller's own process does not show them again in the plain loop either.
        """
        if self._pass_first(warnings.filters) and forget:
            _wm._filters_mutated()

    def _pass_first(self, filters: Any) -> bool:
        """Have warnings of tasks pass these filters while the hooks are there; return False if they did."""
        with self._lock:
            if not self._replaced:
                return False
            self._lists[id(filters)] = filters
            if filters[:1] == [_FILTER]:
                return False
            filters.insert(0, _FILTER)
            return True

    def remove(self) -> None:
        """Take the hooks away, unless something else has come over them meanwhile."""
        with self._lock:
            self._remove()

    def _remove(self) -> None:
        while self._replaced:
            owner, name, own, hook = self._replaced.pop()
            if getattr(owner, name) is hook:
                setattr(owner, name, own)
        while self._lists:
            _, filters = self._lists.popitem()
            while _FILTER in filters:
                filters.remove(_FILTER)

    def _showing(self, show: Callable[[Any], None]) -> Any:
        """`warnings._showwarnmsg`, which shows all warnings, for those of a task."""

        @functools.wraps(show)
        def showing(one: Any) -> None:
            task = _current.get()
            if task is None:
                show(one)
                return
            own = _wm.showwarning
            is_own = own is not self._found and own is not _wm._showwarning_orig
            task.show(one.message, one.category, one.filename, one.lineno, own if is_own else None)

        return showing

    def _mutating(self, mutated: Callable[[], None]) -> Any:
        """`warnings._filters_mutated`, which is called whenever filters have changed, for those of the process."""

        @functools.wraps(mutated)
        def mutating() -> None:
            self._pass_first(warnings.filters)
            mutated()

        return mutating

    @staticmethod
    def _entering(enter: Callable[[Any], Any]) -> Any:
        """`warnings.catch_warnings.__enter__` that changes a task's own filters, if it is one's."""

        @functools.wraps(enter)
        def entering(block: Any) -> Any:
            task = _current.get()
            if task is None or block._entered or block._module is not warnings:
                return enter(block)
            block._entered, block._left = True, (task.scopes, _wm.showwarning)
            scope = task.scopes[-1]
            log: list[Any] | None = [] if block._record else None
            filters = None if scope.filters is None else list(scope.filters)
            task.scopes = [*task.scopes, Scope(filters, set(), scope.log if log is None else log)]
            _wm._filters_mutated()
            if block._filter is not None:
                warnings.simplefilter(*block._filter)
            return log

        return entering

    def _leaving(self, leave: Callable[..., Any]) -> Any:
        """`warnings.catch_warnings.__exit__`, for what `_entering` has entered too."""

        @functools.wraps(leave)
        def leaving(block: Any, *error: Any) -> None:
            left, task = vars(block).pop("_left", None), _current.get()
            if left is None:
                if block._module is warnings and block._entered:
                    self._lists.pop(id(warnings.filters), None)
                    self._pass_first(block._filters)  # before they are there again: tasks of other threads go on
                leave(block, *error)
            elif task is not None:
                task.scopes, shown_by = left
                if _wm.showwarning is not shown_by:
                    _wm.showwarning = self._found
                _wm._filters_mutated()

        return leaving


def _adding(add: Callable[..., None]) -> Any:
    """`warnings._add_filter`, by which all filters are added, for the filters of a task too."""

    @functools.wraps(add)
    def adding(*item: Any, append: Any) -> None:
        task = _current.get()
        if task is None:
            add(*item, append=append)
        else:
            task.add_filter(item, append)

    return adding


def _resetting(reset: Callable[[], None]) -> Any:
    """`warnings.resetwarnings`, for the filters of a task too."""

    @functools.wraps(reset)
    def resetting() -> None:
        task = _current.get()
        if task is None:
            reset()
        else:
            task.replace_filters([])

    return resetting
