"""What each instruction of the interpreter does to what is known: operators, jumps, calls and exceptions.

Those that only move values are in `machine.py`.
"""

from __future__ import annotations

import dis
import sys

from . import operations
from .machine import KEYWORDS, Machine
from .values import EXCEPTION, MISSING, NONE, NULL, NUMBER, OPAQUE, PLAIN, UnprovenError, Value, classify, slice_of

_TO_POSITIVE = 5  # of CALL_INTRINSIC_1
_CONTEXT_END = Value("context end")


class Instructions(Machine):
    """Executes one instruction on what is known before it."""

    # Operators.

    def _do_binary_op(self, one: dis.Instruction) -> None:
        left, right = self.pop_many(2)
        if one.argrepr == "[]":  # from Python 3.14 on
            self.push(operations.subscript(left, right))
        else:
            self.push(operations.binary(one.argrepr, left, right))

    def _do_binary_subscr(self, one: dis.Instruction) -> None:
        self.push(operations.subscript(*self.pop_many(2)))

    def _do_binary_slice(self, one: dis.Instruction) -> None:
        value, *parts = self.pop_many(3)
        self.push(operations.subscript(value, slice_of(parts)))

    def _do_store_subscr(self, one: dis.Instruction) -> None:
        value, container, index = self.pop_many(3)
        operations.store(container, index, value)

    def _do_store_slice(self, one: dis.Instruction) -> None:
        value, container, *parts = self.pop_many(4)
        operations.store(container, slice_of(parts), value)

    def _do_compare_op(self, one: dis.Instruction) -> None:
        self.push(operations.compare(*self.pop_many(2)))

    def _do_is_op(self, one: dis.Instruction) -> None:
        self.pop_many(2)
        self.push(NUMBER)

    def _do_contains_op(self, one: dis.Instruction) -> None:
        self.push(operations.contains(*self.pop_many(2)))

    def _do_unary_negative(self, one: dis.Instruction) -> None:
        self.push(operations.unary(self.pop()))

    _do_unary_positive = _do_unary_invert = _do_unary_negative

    def _do_call_intrinsic_1(self, one: dis.Instruction) -> None:
        if one.arg != _TO_POSITIVE:
            raise UnprovenError(one.opname)
        self._do_unary_negative(one)

    def _do_to_bool(self, one: dis.Instruction) -> None:
        operations.truth(self.pop())
        self.push(NUMBER)

    _do_unary_not = _do_to_bool

    # Jumps and loops.

    def _do_jump_forward(self, one: dis.Instruction) -> None:
        self.jumps.append((one.argval, tuple(self.stack)))
        self.goes_on = False

    _do_jump_backward = _do_jump_backward_no_interrupt = _do_jump_forward

    def _do_pop_jump_if_true(self, one: dis.Instruction) -> None:
        operations.truth(self.pop())
        self.jumps.append((one.argval, tuple(self.stack)))

    _do_pop_jump_if_false = _do_pop_jump_forward_if_true = _do_pop_jump_forward_if_false = _do_pop_jump_if_true
    _do_pop_jump_backward_if_true = _do_pop_jump_backward_if_false = _do_pop_jump_if_true

    def _do_pop_jump_if_none(self, one: dis.Instruction) -> None:
        self.pop()
        self.jumps.append((one.argval, tuple(self.stack)))

    _do_pop_jump_if_not_none = _do_pop_jump_forward_if_none = _do_pop_jump_forward_if_not_none = _do_pop_jump_if_none
    _do_pop_jump_backward_if_none = _do_pop_jump_backward_if_not_none = _do_pop_jump_if_none

    def _do_jump_if_true_or_pop(self, one: dis.Instruction) -> None:
        self.jumps.append((one.argval, tuple(self.stack)))
        operations.truth(self.pop())

    _do_jump_if_false_or_pop = _do_jump_if_true_or_pop

    def _do_get_iter(self, one: dis.Instruction) -> None:
        value = self.pop()
        self.push(value if value.kind == "iterator" else Value("iterator", operations.item_of(value)))

    def _do_for_iter(self, one: dis.Instruction) -> None:
        iterator = self.pop()
        if iterator.kind != "iterator":
            raise UnprovenError("loop")
        # At the end Python 3.14 leaves the iterator on the stack, for an instruction that takes it away.
        ended = self.stack if sys.version_info < (3, 14) else [*self.stack, iterator]
        self.jumps.append((one.argval, tuple(ended)))
        self.push(iterator, iterator.detail)

    # Calls.

    def _do_kw_names(self, one: dis.Instruction) -> None:
        self.store(KEYWORDS, Value("names", self.code.co_consts[one.arg or 0]))

    def _do_call(self, one: dis.Instruction) -> None:
        names = self.variables[KEYWORDS]
        self.store(KEYWORDS, MISSING)
        self._call(one.arg or 0, names)

    def _do_call_kw(self, one: dis.Instruction) -> None:
        self._call(one.arg or 0, self.pop())

    def _call(self, count: int, names: Value) -> None:
        given = self.pop_many(count)
        first, second = self.pop_many(2)
        function = second if first == NULL else first
        if NULL not in (first, second):
            given = [second, *given]
        words = names.detail if names.kind == "names" else ()
        if len(words) > len(given) or names.kind not in ("names", "missing"):
            raise UnprovenError("names of arguments")
        split = len(given) - len(words)
        self.push(self._result(function, given[:split], dict(zip(words, given[split:], strict=True))))

    def _result(self, function: Value, given: list[Value], named: dict[str, Value]) -> Value:
        """What a call returns."""
        match function.kind:
            case "known":
                return operations.call_known(function.detail, given, named)
            case "method":
                value, name = function.detail
                return operations.call_method(value, name, given, named)
            case "function":
                reference, code = function.detail
                return self.examination.call(reference(), code, given, named)
            case "local":
                return self.examination.call(self.function, function.detail, given, named)
            case "context end":
                return PLAIN
        raise UnprovenError(f"a call of something {function.kind}")

    def _do_make_function(self, one: dis.Instruction) -> None:
        code = self.pop()
        if one.arg or code.kind != "code":
            raise UnprovenError("a function that captures something, or has default values")
        self.push(Value("local", code.detail))

    def _do_return_value(self, one: dis.Instruction) -> None:
        self.returned, self.goes_on = self.pop(), False

    def _do_return_const(self, one: dis.Instruction) -> None:
        self.returned, self.goes_on = classify(one.argval), False

    # Exceptions. Their tracebacks refer to arguments, as in the plain loop, so that they can only be raised.

    def _do_push_exc_info(self, one: dis.Instruction) -> None:
        self.push(OPAQUE, self.pop())

    def _do_check_exc_match(self, one: dis.Instruction) -> None:
        kinds = self.pop()
        for kind in kinds.detail if kinds.kind == "tuple" else (kinds,):
            self._check_exception(kind)
        self.push(NUMBER)

    def _check_exception(self, value: Value) -> None:
        if value != EXCEPTION and not (value.kind == "known" and value.detail.result == "exception"):
            raise UnprovenError("an exception with functions of its own")

    def _do_pop_except(self, one: dis.Instruction) -> None:
        self.pop()

    def _do_reraise(self, one: dis.Instruction) -> None:
        self.goes_on = False

    def _do_raise_varargs(self, one: dis.Instruction) -> None:
        raised = self.pop_many(one.arg or 0)
        for value in raised[:1] + [cause for cause in raised[1:] if cause != NONE]:
            self._check_exception(value)
        self.goes_on = False

    def _do_load_assertion_error(self, one: dis.Instruction) -> None:
        self.push(classify(AssertionError))

    def _do_load_common_constant(self, one: dis.Instruction) -> None:
        if one.arg:
            raise UnprovenError(one.opname)
        self._do_load_assertion_error(one)

    def _do_before_with(self, one: dis.Instruction) -> None:
        if self.pop().kind != "errstate":
            raise UnprovenError("with")
        self.push(_CONTEXT_END, PLAIN)

    def _do_load_special(self, one: dis.Instruction) -> None:
        """From Python 3.14 on: how what a ``with`` is for begins or ends, and the empty place beside it."""
        self._do_before_with(one)
        self.pop()
        self.push(NULL)

    def _do_with_except_start(self, one: dis.Instruction) -> None:
        if self.stack[-4 if sys.version_info < (3, 14) else -5] != _CONTEXT_END:
            raise UnprovenError("with")
        self.push(NUMBER)
