"""What each instruction of the interpreter does to what is known."""

from __future__ import annotations

import dis
import sys
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from . import operations
from .values import (
    EXCEPTION,
    INT,
    MISSING,
    NONE,
    NULL,
    NUMBER,
    OPAQUE,
    PLAIN,
    Unproven,
    Value,
    classify,
    is_harmless,
    slice_of,
)

if TYPE_CHECKING:
    from .bytecode import Examination

_BEFORE_3_13 = sys.version_info < (3, 13)
_TO_POSITIVE = 5  # of CALL_INTRINSIC_1
#: Where the names of the next call's arguments are kept, in Python 3.11 and 3.12: among the variables.
KEYWORDS = "names of arguments"
_CONTEXT_END = Value("context end")


class Instructions:
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
        examination: Examination,
        function: FunctionType,
        code: CodeType,
        stack: tuple[Value, ...],
        variables: dict[str, Value],
    ) -> None:
        self._examination, self._function, self._code = examination, function, code
        self.stack, self.variables = list(stack), variables
        self.jumps: list[tuple[int, tuple[Value, ...]]] = []
        self.goes_on = True
        self.returned: Value | None = None

    def execute(self, one: dis.Instruction) -> None:
        """Execute an instruction; there is a method for each that is known."""
        do = getattr(self, f"_{one.opname}", None)
        if do is None:
            raise Unproven(one.opname)
        do(one)

    def _pop(self) -> Value:
        if not self.stack:
            raise Unproven("an empty stack")
        return self.stack.pop()

    def _pop_many(self, count: int) -> list[Value]:
        if count > len(self.stack):
            raise Unproven("an empty stack")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _push(self, *values: Value) -> None:
        self.stack += values

    # Names and constants.

    def _NOP(self, one: dis.Instruction) -> None:
        pass

    _RESUME = _CACHE = _PRECALL = _EXTENDED_ARG = _NOT_TAKEN = _COPY_FREE_VARS = _NOP

    def _LOAD_CONST(self, one: dis.Instruction) -> None:
        constant = one.argval
        names = type(constant) is tuple and constant and all(type(name) is str for name in constant)
        # Perhaps of the arguments of the next call, from Python 3.13 on.
        self._push(Value("names", constant) if names else classify(constant))

    _LOAD_SMALL_INT = _LOAD_CONST

    def _load(self, name: str) -> None:
        value = self.variables[name]
        if value == MISSING:
            raise Unproven(f"{name} has no value")
        self._push(value)

    def _store(self, name: str, value: Value) -> None:
        if value == NULL:
            value = MISSING
        self.variables = {**self.variables, name: value}

    def _LOAD_FAST(self, one: dis.Instruction) -> None:
        self._load(one.argval)

    _LOAD_FAST_CHECK = _LOAD_FAST_BORROW = _LOAD_FAST

    def _LOAD_FAST_LOAD_FAST(self, one: dis.Instruction) -> None:
        for name in one.argval:
            self._load(name)

    _LOAD_FAST_BORROW_LOAD_FAST_BORROW = _LOAD_FAST_LOAD_FAST

    def _LOAD_FAST_AND_CLEAR(self, one: dis.Instruction) -> None:
        value = self.variables[one.argval]
        self._push(NULL if value == MISSING else value)
        self._store(one.argval, MISSING)

    def _STORE_FAST(self, one: dis.Instruction) -> None:
        self._store(one.argval, self._pop())

    def _STORE_FAST_STORE_FAST(self, one: dis.Instruction) -> None:
        for name in one.argval:
            self._store(name, self._pop())

    def _STORE_FAST_LOAD_FAST(self, one: dis.Instruction) -> None:
        stored, loaded = one.argval
        self._store(stored, self._pop())
        self._load(loaded)

    def _DELETE_FAST(self, one: dis.Instruction) -> None:
        self._store(one.argval, MISSING)

    def _with_null(self, value: Value, null: bool) -> None:
        """Push a function, perhaps with the empty place that calls have beside it."""
        if null:
            self._push(*((NULL, value) if _BEFORE_3_13 else (value, NULL)))
        else:
            self._push(value)

    def _LOAD_GLOBAL(self, one: dis.Instruction) -> None:
        value = self._read("global", one.argval)
        if value == MISSING:
            value = self._read("builtin", one.argval)
        self._with_null(value, bool((one.arg or 0) & 1))

    def _LOAD_DEREF(self, one: dis.Instruction) -> None:
        self._push(self._read("cell", one.argval))

    def _read(self, where: str, name: str) -> Value:
        if self._code is not self._function.__code__ and where == "cell":
            raise Unproven("a variable of an enclosing function")
        return self._examination.read(self._function, where, name)

    def _LOAD_ATTR(self, one: dis.Instruction) -> None:
        method = sys.version_info >= (3, 12) and bool((one.arg or 0) & 1)
        self._with_null(self._attribute(self._pop(), one.argval), method)

    def _LOAD_METHOD(self, one: dis.Instruction) -> None:
        self._with_null(self._attribute(self._pop(), one.argval), True)

    def _attribute(self, value: Value, name: str) -> Value:
        if value.kind == "module":
            return self._examination.read(value.detail(), "module", name)
        return operations.attribute(value, name)

    # The stack, and new values.

    def _POP_TOP(self, one: dis.Instruction) -> None:
        self._pop()

    _POP_ITER = _POP_TOP

    def _PUSH_NULL(self, one: dis.Instruction) -> None:
        self._push(NULL)

    def _COPY(self, one: dis.Instruction) -> None:
        self._push(self.stack[-self._depth(one)])

    def _SWAP(self, one: dis.Instruction) -> None:
        at = -self._depth(one)
        self.stack[at], self.stack[-1] = self.stack[-1], self.stack[at]

    def _depth(self, one: dis.Instruction) -> int:
        if not one.arg or one.arg > len(self.stack):
            raise Unproven("an empty stack")
        return one.arg

    def _BUILD_TUPLE(self, one: dis.Instruction) -> None:
        self._push(Value("tuple", tuple(self._pop_many(one.arg or 0))))

    def _BUILD_LIST(self, one: dis.Instruction) -> None:
        items = self._pop_many(one.arg or 0)
        # One that holds arguments is not changed any more: nothing is known of its other names.
        self._push(PLAIN if all(map(is_harmless, items)) else Value("list", tuple(items)))

    def _build_plain(self, count: int) -> None:
        self._push(self._plain(self._pop_many(count)))

    def _plain(self, items: list[Value]) -> Value:
        if not all(map(is_harmless, items)):
            raise Unproven("holds an argument")
        return PLAIN

    def _BUILD_SET(self, one: dis.Instruction) -> None:
        self._build_plain(one.arg or 0)

    def _BUILD_MAP(self, one: dis.Instruction) -> None:
        self._build_plain(2 * (one.arg or 0))

    def _BUILD_CONST_KEY_MAP(self, one: dis.Instruction) -> None:
        self._build_plain((one.arg or 0) + 1)

    _BUILD_STRING = _BUILD_SET

    def _BUILD_SLICE(self, one: dis.Instruction) -> None:
        self._push(slice_of(self._pop_many(one.arg or 2)))

    def _LIST_EXTEND(self, one: dis.Instruction) -> None:
        self._plain([self._pop()])
        self._plain([self.stack[-self._depth(one)]])

    _LIST_APPEND = _SET_ADD = _SET_UPDATE = _DICT_UPDATE = _LIST_EXTEND

    def _MAP_ADD(self, one: dis.Instruction) -> None:
        self._plain(self._pop_many(2))
        self._plain([self.stack[-self._depth(one)]])

    def _FORMAT_SIMPLE(self, one: dis.Instruction) -> None:
        value = self._pop()
        if value not in (INT, NUMBER, PLAIN):
            raise Unproven("the text of an array may be made by a function of the user's")
        self._push(PLAIN)

    _CONVERT_VALUE = _FORMAT_SIMPLE

    def _FORMAT_WITH_SPEC(self, one: dis.Instruction) -> None:
        self._plain([self._pop()])
        self._FORMAT_SIMPLE(one)

    def _FORMAT_VALUE(self, one: dis.Instruction) -> None:
        (self._FORMAT_WITH_SPEC if (one.arg or 0) & 4 else self._FORMAT_SIMPLE)(one)

    def _UNPACK_SEQUENCE(self, one: dis.Instruction) -> None:
        self._push(*reversed(operations.unpack(self._pop(), one.arg or 0)))

    # Operators.

    def _BINARY_OP(self, one: dis.Instruction) -> None:
        left, right = self._pop_many(2)
        if one.argrepr == "[]":  # from Python 3.14 on
            self._push(operations.subscript(left, right))
        else:
            self._push(operations.binary(one.argrepr, left, right))

    def _BINARY_SUBSCR(self, one: dis.Instruction) -> None:
        self._push(operations.subscript(*self._pop_many(2)))

    def _BINARY_SLICE(self, one: dis.Instruction) -> None:
        value, *parts = self._pop_many(3)
        self._push(operations.subscript(value, slice_of(parts)))

    def _STORE_SUBSCR(self, one: dis.Instruction) -> None:
        value, container, index = self._pop_many(3)
        operations.store(container, index, value)

    def _STORE_SLICE(self, one: dis.Instruction) -> None:
        value, container, *parts = self._pop_many(4)
        operations.store(container, slice_of(parts), value)

    def _COMPARE_OP(self, one: dis.Instruction) -> None:
        self._push(operations.compare(*self._pop_many(2)))

    def _IS_OP(self, one: dis.Instruction) -> None:
        self._pop_many(2)
        self._push(NUMBER)

    def _CONTAINS_OP(self, one: dis.Instruction) -> None:
        self._push(operations.contains(*self._pop_many(2)))

    def _UNARY_NEGATIVE(self, one: dis.Instruction) -> None:
        self._push(operations.unary(self._pop()))

    _UNARY_POSITIVE = _UNARY_INVERT = _UNARY_NEGATIVE

    def _CALL_INTRINSIC_1(self, one: dis.Instruction) -> None:
        if one.arg != _TO_POSITIVE:
            raise Unproven(one.opname)
        self._UNARY_NEGATIVE(one)

    def _TO_BOOL(self, one: dis.Instruction) -> None:
        operations.truth(self._pop())
        self._push(NUMBER)

    _UNARY_NOT = _TO_BOOL

    # Jumps and loops.

    def _JUMP_FORWARD(self, one: dis.Instruction) -> None:
        self.jumps.append((one.argval, tuple(self.stack)))
        self.goes_on = False

    _JUMP_BACKWARD = _JUMP_BACKWARD_NO_INTERRUPT = _JUMP_FORWARD

    def _POP_JUMP_IF_TRUE(self, one: dis.Instruction) -> None:
        operations.truth(self._pop())
        self.jumps.append((one.argval, tuple(self.stack)))

    _POP_JUMP_IF_FALSE = _POP_JUMP_FORWARD_IF_TRUE = _POP_JUMP_FORWARD_IF_FALSE = _POP_JUMP_IF_TRUE
    _POP_JUMP_BACKWARD_IF_TRUE = _POP_JUMP_BACKWARD_IF_FALSE = _POP_JUMP_IF_TRUE

    def _POP_JUMP_IF_NONE(self, one: dis.Instruction) -> None:
        self._pop()
        self.jumps.append((one.argval, tuple(self.stack)))

    _POP_JUMP_IF_NOT_NONE = _POP_JUMP_FORWARD_IF_NONE = _POP_JUMP_FORWARD_IF_NOT_NONE = _POP_JUMP_IF_NONE
    _POP_JUMP_BACKWARD_IF_NONE = _POP_JUMP_BACKWARD_IF_NOT_NONE = _POP_JUMP_IF_NONE

    def _JUMP_IF_TRUE_OR_POP(self, one: dis.Instruction) -> None:
        self.jumps.append((one.argval, tuple(self.stack)))
        operations.truth(self._pop())

    _JUMP_IF_FALSE_OR_POP = _JUMP_IF_TRUE_OR_POP

    def _GET_ITER(self, one: dis.Instruction) -> None:
        value = self._pop()
        self._push(value if value.kind == "iterator" else Value("iterator", operations.item_of(value)))

    def _FOR_ITER(self, one: dis.Instruction) -> None:
        iterator = self._pop()
        if iterator.kind != "iterator":
            raise Unproven("loop")
        # At the end Python 3.11 takes the iterator away; later ones do at the instructions jumped to, which they skip.
        ended = self.stack if sys.version_info < (3, 12) else [*self.stack, iterator, NULL]
        self.jumps.append((one.argval, tuple(ended)))
        self._push(iterator, iterator.detail)

    def _END_FOR(self, one: dis.Instruction) -> None:
        self._pop_many(2 if _BEFORE_3_13 else 1)

    # Calls.

    def _KW_NAMES(self, one: dis.Instruction) -> None:
        self._store(KEYWORDS, Value("names", self._code.co_consts[one.arg or 0]))

    def _CALL(self, one: dis.Instruction) -> None:
        names = self.variables[KEYWORDS]
        self._store(KEYWORDS, MISSING)
        self._call(one.arg or 0, names)

    def _CALL_KW(self, one: dis.Instruction) -> None:
        self._call(one.arg or 0, self._pop())

    def _call(self, count: int, names: Value) -> None:
        given = self._pop_many(count)
        first, second = self._pop_many(2)
        function = second if first == NULL else first
        if NULL not in (first, second):
            given = [second, *given]
        words = names.detail if names.kind == "names" else ()
        if len(words) > len(given) or names.kind not in ("names", "missing"):
            raise Unproven("names of arguments")
        split = len(given) - len(words)
        self._push(self._result(function, given[:split], dict(zip(words, given[split:], strict=True))))

    def _result(self, function: Value, given: list[Value], named: dict[str, Value]) -> Value:
        """What a call returns."""
        match function.kind:
            case "known":
                return operations.call_known(function.detail, given, named)
            case "method":
                return operations.call_method(*function.detail, given, named)
            case "function":
                reference, code = function.detail
                return self._examination.call(reference(), code, given, named)
            case "local":
                return self._examination.call(self._function, function.detail, given, named)
            case "context end":
                return PLAIN
        raise Unproven(f"a call of something {function.kind}")

    def _MAKE_FUNCTION(self, one: dis.Instruction) -> None:
        code = self._pop()
        if one.arg or code.kind != "code":
            raise Unproven("a function that captures something, or has default values")
        self._push(Value("local", code.detail))

    def _RETURN_VALUE(self, one: dis.Instruction) -> None:
        self.returned, self.goes_on = self._pop(), False

    def _RETURN_CONST(self, one: dis.Instruction) -> None:
        self.returned, self.goes_on = classify(one.argval), False

    # Exceptions. Their tracebacks refer to arguments, as in the plain loop, so that they can only be raised.

    def _PUSH_EXC_INFO(self, one: dis.Instruction) -> None:
        self._push(OPAQUE, self._pop())

    def _CHECK_EXC_MATCH(self, one: dis.Instruction) -> None:
        kinds = self._pop()
        for kind in kinds.detail if kinds.kind == "tuple" else (kinds,):
            self._check_exception(kind)
        self._push(NUMBER)

    def _check_exception(self, value: Value) -> None:
        if value != EXCEPTION and not (value.kind == "known" and value.detail.result == "exception"):
            raise Unproven("an exception with functions of its own")

    def _POP_EXCEPT(self, one: dis.Instruction) -> None:
        self._pop()

    def _RERAISE(self, one: dis.Instruction) -> None:
        self.goes_on = False

    def _RAISE_VARARGS(self, one: dis.Instruction) -> None:
        raised = self._pop_many(one.arg or 0)
        for value in raised[:1] + [cause for cause in raised[1:] if cause != NONE]:
            self._check_exception(value)
        self.goes_on = False

    def _LOAD_ASSERTION_ERROR(self, one: dis.Instruction) -> None:
        self._push(classify(AssertionError))

    def _LOAD_COMMON_CONSTANT(self, one: dis.Instruction) -> None:
        if one.arg:
            raise Unproven(one.opname)
        self._LOAD_ASSERTION_ERROR(one)

    def _BEFORE_WITH(self, one: dis.Instruction) -> None:
        if self._pop().kind != "errstate":
            raise Unproven("with")
        self._push(_CONTEXT_END, PLAIN)

    def _WITH_EXCEPT_START(self, one: dis.Instruction) -> None:
        if self.stack[-4] != _CONTEXT_END:
            raise Unproven("with")
        self._push(NUMBER)
