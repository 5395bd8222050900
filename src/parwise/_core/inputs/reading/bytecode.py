"""Goes through the bytecode of a function with what is known of each value, on all its ways at once.

Whatever is not known to be harmless ends it with `UnprovenError`: an instruction without a method in `Instructions`,
one whose effect on the stack is not what `dis` tells of this interpreter, a call of an unknown function.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from .instructions import Instructions
from .machine import KEYWORDS
from .values import EXCEPTION, MISSING, NULL, OPAQUE, UnprovenError, Value, join

#: Interpreters whose instructions are known.
VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
#: Instructions that are gone through, at most, and functions within functions.
MOST_STEPS, MOST_DEPTH = 3000, 8


class State(NamedTuple):
    """What is known before an instruction."""

    stack: tuple[Value, ...]
    variables: dict[str, Value]


class Examination:
    """One examination of a function and of those that it calls.

    Parameters
    ----------
    read : callable
        ``read(function, where, name)`` returns what is known of a global variable, a default value or a variable of an
        enclosing function.
    """

    def __init__(self, read: Callable[[FunctionType, str, str], Value]) -> None:
        self._read = read
        self._steps = 0
        self._active: list[CodeType] = []
        self._results: dict[Any, Value] = {}

    def read(self, function: FunctionType, where: str, name: str) -> Value:
        """What is known of what a name refers to."""
        return self._read(function, where, name)

    def call(self, function: FunctionType, code: CodeType, given: list[Value], named: dict[str, Value]) -> Value:
        """What a function returns; `code` is its own, or that of one within it that captures nothing."""
        if code in self._active or len(self._active) >= MOST_DEPTH:
            raise UnprovenError("calls itself, or too many others")
        variables = self._bind(function, code, given, named)
        key = (function, code, tuple(variables.items()))
        if key not in self._results:
            self._active.append(code)
            self._results[key] = self._go_through(function, code, variables)
            self._active.pop()
        return self._results[key]

    def _bind(
        self, function: FunctionType, code: CodeType, given: list[Value], named: dict[str, Value]
    ) -> dict[str, Value]:
        """Variables at the start."""
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if len(given) > code.co_argcount or not set(names[code.co_posonlyargcount :]).issuperset(named):
            raise UnprovenError("arguments that it does not take")
        variables = (
            dict.fromkeys((*code.co_varnames, KEYWORDS), MISSING) | dict(zip(names, given, strict=False)) | named
        )
        for name in names:
            if variables[name] == MISSING and code is function.__code__:
                variables[name] = self.read(function, "default", name)
        if any(variables[name] == MISSING for name in names) or named.keys() & set(names[: len(given)]):
            raise UnprovenError("arguments are missing, or given twice")
        return variables

    def _go_through(self, function: FunctionType, code: CodeType, variables: dict[str, Value]) -> Value:
        """What a function returns, joined over all its ways."""
        body = list(dis.get_instructions(code))
        place = {one.offset: number for number, one in enumerate(body)}
        handlers = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
        known = {0: State((), variables)}
        waiting, result = [0], MISSING
        while waiting:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise UnprovenError("too long")
            number = waiting.pop()
            one, state = body[number], known[number]
            machine = Instructions(self, function, code, state.stack, state.variables)
            machine.execute(one)
            result = result if machine.returned is None else join(result, machine.returned)
            ways = [(landing(body, place[target]), State(stack, machine.variables)) for target, stack in machine.jumps]
            if machine.goes_on:
                _check_effect(one, len(state.stack), len(machine.stack))
                ways.append((number + 1, State(tuple(machine.stack), machine.variables)))
            entries = [entry for entry in handlers if entry.start <= one.offset < entry.end]
            ways += [(place[entry.target], _at_handler(entry, state)) for entry in entries]
            for number, new in ways:
                before = known.get(number)
                known[number] = new if before is None else _merged(before, new)
                if known[number] != before:
                    waiting.append(number)
        return result


def landing(body: list[dis.Instruction], number: int) -> int:
    """Where a jump to an instruction goes on.

    Loops that end skip END_FOR, and in Python 3.13 the next instruction too; `dis` names the one before it as their
    target, or, in later releases (CPython issue 149498), the one that it is.
    """
    if body[number].opname != "END_FOR":
        return number
    return number + (2 if sys.version_info[:2] == (3, 13) else 1)


def _at_handler(entry: Any, state: State) -> State:
    """What is known where an exception is handled, which has been raised by an instruction in this state."""
    if len(state.stack) < entry.depth:
        raise UnprovenError("stack of an exception")
    stack = state.stack[: entry.depth] + (OPAQUE,) * entry.lasti + (EXCEPTION,)
    # A call that raises takes the names of its arguments.
    return State(stack, state.variables | {KEYWORDS: MISSING})


def _merged(one: State, other: State) -> State:
    """What is known where two ways meet."""
    if len(one.stack) != len(other.stack):
        raise UnprovenError("stacks of two lengths")
    stack = tuple(map(_merge_item, one.stack, other.stack))
    variables = {name: join(value, other.variables[name]) for name, value in one.variables.items()}
    return State(stack, variables)


def _merge_item(one: Value, other: Value) -> Value:
    return one if one == other else OPAQUE if NULL in (one, other) else join(one, other)


def _check_effect(one: dis.Instruction, before: int, after: int) -> None:
    """Refuse an instruction that does something else to the stack than this interpreter says."""
    if one.opname in ("PRECALL", "CALL") and sys.version_info < (3, 12):
        return  # what both do together is told of each in part
    if after - before != dis.stack_effect(one.opcode, one.arg, jump=False):
        raise UnprovenError(f"{one.opname} has another effect")
