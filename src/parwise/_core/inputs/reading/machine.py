"""Instructions that move values, look up names and build values: the stack and the variables of one function."""

from __future__ import annotations

import dis
import sys
from types import CodeType, FunctionType
from typing import Protocol

from . import operations
from .values import (
    EXCEPTION,
    INT,
    MISSING,
    NULL,
    NUMBER,
    PLAIN,
    UnprovenError,
    Value,
    classify,
    is_harmless,
    slice_of,
)

_BEFORE_3_13 = sys.version_info < (3, 13)
#: Where the names of the next call's arguments are kept, in Python 3.11 and 3.12: among the variables.
KEYWORDS = "names of arguments"


class Examiner(Protocol):
    """Who examines a function and all that it calls."""

    def read(self, function: FunctionType, where: str, name: str) -> Value:
        """What is known of what a name refers to."""

    def call(self, function: FunctionType, code: CodeType, given: list[Value], named: dict[str, Value]) -> Value:
        """What a function returns."""


class Machine:
    """Executes one instruction on what is known before it.

    Attributes
    ----------
    stack : list of Value
        The stack behind it.
    variables : dict
        Local variables behind it.
    jumps : list
        Where it may jump to, with the stack there.
    goes_on : bool
        True if the next instruction may follow.
    returned : Value or None
        What the function returns here.
    """

    def __init__(
        self,
        examination: Examiner,
        function: FunctionType,
        code: CodeType,
        stack: tuple[Value, ...],
        variables: dict[str, Value],
    ) -> None:
        self.examination, self.function, self.code = examination, function, code
        self.stack, self.variables = list(stack), variables
        self.jumps: list[tuple[int, tuple[Value, ...]]] = []
        self.goes_on = True
        self.returned: Value | None = None

    def execute(self, one: dis.Instruction) -> None:
        """Execute an instruction; there is a method for each that is known."""
        do = getattr(self, f"_do_{one.opname.lower()}", None)
        if do is None:
            raise UnprovenError(one.opname)
        do(one)

    def pop(self) -> Value:
        """Take the last value of the stack."""
        if not self.stack:
            raise UnprovenError("an empty stack")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Value]:
        """Take the last values of the stack, in its order."""
        if count > len(self.stack):
            raise UnprovenError("an empty stack")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def push(self, *values: Value) -> None:
        """Put values on the stack."""
        self.stack += values

    # Names and constants.

    def _do_nop(self, one: dis.Instruction) -> None:
        pass

    _do_resume = _do_cache = _do_precall = _do_extended_arg = _do_not_taken = _do_copy_free_vars = _do_nop

    def _do_load_const(self, one: dis.Instruction) -> None:
        constant = one.argval
        names = type(constant) is tuple and constant and all(type(name) is str for name in constant)
        # Perhaps of the arguments of the next call, from Python 3.13 on.
        self.push(Value("names", constant) if names else classify(constant))

    _do_load_small_int = _do_load_const

    def _load(self, name: str) -> None:
        value = self.variables[name]
        if value == MISSING:
            raise UnprovenError(f"{name} has no value")
        if value == EXCEPTION:  # its traceback refers to the variables, and a variable that keeps it is a cycle
            raise UnprovenError(f"{name} is an exception")
        self.push(value)

    def store(self, name: str, value: Value) -> None:
        """Give a variable a value; an empty place is that of one without."""
        if value == NULL:
            value = MISSING
        self.variables = {**self.variables, name: value}

    def _do_load_fast(self, one: dis.Instruction) -> None:
        self._load(one.argval)

    _do_load_fast_check = _do_load_fast_borrow = _do_load_fast

    def _do_load_fast_load_fast(self, one: dis.Instruction) -> None:
        for name in one.argval:
            self._load(name)

    _do_load_fast_borrow_load_fast_borrow = _do_load_fast_load_fast

    def _do_load_fast_and_clear(self, one: dis.Instruction) -> None:
        value = self.variables[one.argval]
        self.push(NULL if value == MISSING else value)
        self.store(one.argval, MISSING)

    def _do_store_fast(self, one: dis.Instruction) -> None:
        self.store(one.argval, self.pop())

    def _do_store_fast_store_fast(self, one: dis.Instruction) -> None:
        for name in one.argval:
            self.store(name, self.pop())

    def _do_store_fast_load_fast(self, one: dis.Instruction) -> None:
        stored, loaded = one.argval
        self.store(stored, self.pop())
        self._load(loaded)

    def _do_delete_fast(self, one: dis.Instruction) -> None:
        self.store(one.argval, MISSING)

    def _with_null(self, value: Value, null: bool) -> None:
        """Push a function, perhaps with the empty place that calls have beside it."""
        if null:
            self.push(*((NULL, value) if _BEFORE_3_13 else (value, NULL)))
        else:
            self.push(value)

    def _do_load_global(self, one: dis.Instruction) -> None:
        value = self.examination.read(self.function, "global", one.argval)
        if value == MISSING:
            value = self.examination.read(self.function, "builtin", one.argval)
        self._with_null(_found(value, one.argval), bool((one.arg or 0) & 1))

    def _do_load_deref(self, one: dis.Instruction) -> None:
        if self.code is not self.function.__code__:
            raise UnprovenError("a variable of an enclosing function")
        self.push(_found(self.examination.read(self.function, "cell", one.argval), one.argval))

    def _do_load_attr(self, one: dis.Instruction) -> None:
        method = sys.version_info >= (3, 12) and bool((one.arg or 0) & 1)
        self._with_null(self._attribute(self.pop(), one.argval), method)

    def _do_load_method(self, one: dis.Instruction) -> None:
        self._with_null(self._attribute(self.pop(), one.argval), True)

    def _attribute(self, value: Value, name: str) -> Value:
        if value.kind == "module":
            return _found(self.examination.read(value.detail(), "module", name), name)
        return operations.attribute(value, name)

    # The stack, and new values.

    def _do_pop_top(self, one: dis.Instruction) -> None:
        self.pop()

    _do_pop_iter = _do_pop_top

    def _do_push_null(self, one: dis.Instruction) -> None:
        self.push(NULL)

    def _do_copy(self, one: dis.Instruction) -> None:
        self.push(self.stack[-self.depth(one)])

    def _do_swap(self, one: dis.Instruction) -> None:
        at = -self.depth(one)
        self.stack[at], self.stack[-1] = self.stack[-1], self.stack[at]

    def depth(self, one: dis.Instruction) -> int:
        """The distance from the end of the stack that an instruction names."""
        if not one.arg or one.arg > len(self.stack):
            raise UnprovenError("an empty stack")
        return one.arg

    def _do_build_tuple(self, one: dis.Instruction) -> None:
        self.push(Value("tuple", tuple(self.pop_many(one.arg or 0))))

    def _do_build_list(self, one: dis.Instruction) -> None:
        items = self.pop_many(one.arg or 0)
        # One that holds arguments is not changed any more: nothing is known of its other names.
        self.push(PLAIN if all(map(is_harmless, items)) else Value("list", tuple(items)))

    def _build_plain(self, count: int) -> None:
        self.push(self.plain(self.pop_many(count)))

    def plain(self, items: list[Value]) -> Value:
        """A container of harmless values."""
        if not all(map(is_harmless, items)):
            raise UnprovenError("holds an argument")
        return PLAIN

    def _do_build_set(self, one: dis.Instruction) -> None:
        self._build_plain(one.arg or 0)

    def _do_build_map(self, one: dis.Instruction) -> None:
        self._build_plain(2 * (one.arg or 0))

    def _do_build_const_key_map(self, one: dis.Instruction) -> None:
        self._build_plain((one.arg or 0) + 1)

    _do_build_string = _do_build_set

    def _do_build_slice(self, one: dis.Instruction) -> None:
        self.push(slice_of(self.pop_many(one.arg or 2)))

    def _do_list_extend(self, one: dis.Instruction) -> None:
        self.plain([self.pop()])
        self.plain([self.stack[-self.depth(one)]])

    _do_list_append = _do_set_add = _do_set_update = _do_dict_update = _do_list_extend

    def _do_map_add(self, one: dis.Instruction) -> None:
        self.plain(self.pop_many(2))
        self.plain([self.stack[-self.depth(one)]])

    def _do_format_simple(self, one: dis.Instruction) -> None:
        value = self.pop()
        if value not in (INT, NUMBER, PLAIN):
            raise UnprovenError("the text of an array may be made by a function of the user's")
        self.push(PLAIN)

    _do_convert_value = _do_format_simple

    def _do_format_with_spec(self, one: dis.Instruction) -> None:
        self.plain([self.pop()])
        self._do_format_simple(one)

    def _do_format_value(self, one: dis.Instruction) -> None:
        (self._do_format_with_spec if (one.arg or 0) & 4 else self._do_format_simple)(one)

    def _do_unpack_sequence(self, one: dis.Instruction) -> None:
        self.push(*reversed(operations.unpack(self.pop(), one.arg or 0)))


def _found(value: Value, name: str) -> Value:
    """The value of a name; a module may have a function that makes those which are missing."""
    if value == MISSING:
        raise UnprovenError(f"{name} is not there")
    return value
