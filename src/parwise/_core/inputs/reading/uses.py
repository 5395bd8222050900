"""What the bytecode of a function does with what its calls share: globals, free variables, arguments given to all.

A small machine goes along all ways of the code. What it knows of a value is where that may come from: a name, and what
was looked up on the way. It errs on the safe side: what may be shared counts as shared.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterable
from types import CodeType
from typing import Any, Literal, NamedTuple, TypeAlias

from .bytecode import landing
from .values import UnprovenError

#: Interpreters whose instructions are known.
VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))
# Steps through the instructions of one function, at most, and names looked up one after another.
MOST_STEPS, MOST_PATH = 5000, 4
# Places that one value may come from.
MOST_ROOTS = 30

_NO_NEXT = ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE", "RAISE_VARARGS", "RERAISE",
            "RETURN_VALUE", "RETURN_CONST")  # fmt: skip
_LOAD_FAST = ("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_FAST_AND_CLEAR")
_LOAD_TWO = ("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW")
_FREE = ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
# Those whose result is new, or nothing that can be changed.
_NEW = ("COMPARE_OP", "CONTAINS_OP", "IS_OP", "UNARY_NOT", "UNARY_NEGATIVE", "UNARY_INVERT", "TO_BOOL", "FORMAT_VALUE")


class Root(NamedTuple):
    """Where a value may come from.

    Attributes
    ----------
    kind : {"global", "variable", "argument", "module"}
        A global, a variable of an enclosing function, an argument, or a module that the function imports.
    path : tuple of str
        What was looked up: names of attributes, "[]" for an item, "()" for the result of calling it, a root for that
        of a call which has got it as an argument.
    """

    kind: Literal["global", "variable", "argument", "module"]
    name: str
    path: tuple[Any, ...] = ()

    def then(self, name: Any) -> Root:
        """What is looked up in it; beyond `MOST_PATH` all is one."""
        return self if len(self.path) == MOST_PATH else self._replace(path=(*self.path, name))

    def plain(self) -> Root:
        """The same without calls that have got it as an argument: what is known of values must not grow for ever."""
        return self._replace(path=tuple(step if isinstance(step, str) else "()" for step in self.path))


Value: TypeAlias = frozenset[Root]
NEW: Value = frozenset()


class Use(NamedTuple):
    """One use of what is shared.

    Attributes
    ----------
    action : {"sets", "writes", "augments", "calls"}
        A name gets another value; an item or attribute does; an operator like ``+=`` is used; it is called.
    given : tuple of Value
        The positional arguments of a call; None if their places are not known.
    named : dict
        Its arguments by keyword.
    """

    action: Literal["sets", "writes", "augments", "calls"]
    root: Root
    given: tuple[Value, ...] | None = ()
    named: tuple[tuple[str, Value], ...] = ()


class Summary(NamedTuple):
    """All uses in a function and in functions within it, and where what it returns may come from."""

    uses: tuple[Use, ...]
    returned: Value


@functools.lru_cache(maxsize=500)
def summary(code: CodeType) -> Summary:
    """What a function does with what is shared; `UnprovenError` where its bytecode is not known."""
    if sys.version_info[:2] not in VERSIONS or sys.implementation.name != "cpython":
        raise UnprovenError("an interpreter whose bytecode is not known")
    given = {name: frozenset({Root("argument", name)}) for name in _arguments(code)}
    free = {name: frozenset({Root("variable", name)}) for name in code.co_freevars}
    found: list[Use] = []
    returned = _read(code, given, free, found)
    return Summary(tuple(dict.fromkeys(found)), returned)


def _arguments(code: CodeType) -> tuple[str, ...]:
    more = bool(code.co_flags & 4) + bool(code.co_flags & 8)
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + more]


def _read(code: CodeType, given: dict[str, Value], free: dict[str, Value], found: list[Use]) -> Value:
    reader = _Reader(code, given, free)
    reader.read()
    found += reader.found
    inner = {**free, **{name: reader.variables.get(name, NEW) for name in code.co_cellvars}}
    for one in code.co_consts:
        if isinstance(one, CodeType):
            # A comprehension gets the iterator, other functions what is handed to any call.
            given_all = reader.iterated if one.co_varnames[:1] == (".0",) else reader.handed
            shared = dict.fromkeys(_arguments(one), given_all)
            shared_free = {name: inner.get(name, NEW) for name in one.co_freevars}
            nested: list[Use] = []
            _read(one, dict(shared), shared_free, nested)
            found += [use for use in nested if not (use.action == "sets" and use.root.name in code.co_cellvars)]
    return reader.returned


class _Reader:
    """Goes along all ways of one code, until nothing new is found."""

    def __init__(self, code: CodeType, given: dict[str, Value], free: dict[str, Value]) -> None:
        self.variables = given
        self.found: list[Use] = []
        self.iterated = self.handed = self.returned = NEW
        self._free = free
        self._body = [one for one in dis.get_instructions(code) if one.opname != "CACHE"]
        self._place = {one.offset: number for number, one in enumerate(self._body)}
        self._handlers = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
        self._stack: list[Value] = []
        self._keywords: tuple[str, ...] = ()
        self._constants = code.co_consts
        self._steps = 0

    def read(self) -> None:
        """Find all uses; variables may hold at each place what they hold at any."""
        before = None
        while before != self.variables:
            before = dict(self.variables)
            self._go_along()
        self.found = list(dict.fromkeys(self.found))

    def _go_along(self) -> None:
        known: dict[int, tuple[Value, ...]] = {0: ()}
        waiting = [0]
        while waiting:
            self._steps += 1
            if self._steps > MOST_STEPS:
                raise UnprovenError("too long")
            number = waiting.pop()
            one, stack = self._body[number], known[number]
            for place, new in self._ways_from(number, one, stack):
                before = known.get(place)
                if before is not None and len(before) != len(new):
                    raise UnprovenError("stacks of two lengths")
                joined = new if before is None else tuple(_union(both) for both in zip(before, new, strict=True))
                if joined != before:
                    known[place] = joined
                    waiting.append(place)

    def _ways_from(self, number: int, one: dis.Instruction, stack: tuple[Value, ...]) -> list[tuple[int, Any]]:
        """The places that may come next, and what the stack then holds."""
        ways = []
        if one.opcode in dis.hasjrel or one.opcode in dis.hasjabs:
            ways.append(self._jump(one, stack))
        if one.opname in ("RETURN_VALUE", "YIELD_VALUE"):
            self.returned |= stack[-1]
        if one.opname not in _NO_NEXT:
            self._stack = list(stack)
            self._execute(one)
            ways.append((number + 1, tuple(self._stack)))
        for entry in self._handlers:
            if entry.start <= one.offset < entry.end:
                kept = stack[: entry.depth]
                ways.append((self._place[entry.target], (*kept, *(NEW,) * (entry.lasti + 1))))
        return ways

    def _jump(self, one: dis.Instruction, stack: tuple[Value, ...]) -> tuple[int, tuple[Value, ...]]:
        place = self._place[one.argval]
        if one.opname == "FOR_ITER":
            # The loop that has ended skips END_FOR, and takes the iterator away, as `bytecode.landing` tells.
            new = landing(self._body, place)
            keeps = sys.version_info[:2] >= (3, 14) and self._body[new].opname == "POP_ITER"
            return new, stack if keeps else stack[:-1]
        self._stack = list(stack)
        self._effect(dis.stack_effect(one.opcode, one.arg, jump=True))
        return place, tuple(self._stack)

    def _pop(self, count: int = 1) -> list[Value]:
        if count > len(self._stack):
            raise UnprovenError("an empty stack")
        taken = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return taken

    def _effect(self, effect: int) -> None:
        """An instruction that is not known: what it leaves may be anything that it took."""
        if effect < 0:
            taken = self._pop(-effect)
            if self._stack:
                self._stack[-1] = _union([self._stack[-1], *taken])
        self._stack += [NEW] * effect

    def _use(self, action: Any, value: Value, given: Any = (), named: Iterable[tuple[str, Value]] = ()) -> None:
        self.found += [Use(action, root, given, tuple(named)) for root in value]

    def _set(self, name: str, value: Value) -> None:
        self.variables[name] = _union([self.variables.get(name, NEW), value])

    def _get(self, name: str) -> Value:
        return self._free.get(name, NEW) | self.variables.get(name, NEW)

    def _execute(self, one: dis.Instruction) -> None:
        name = one.opname
        handler = getattr(self, f"_{name.lower()}", None)
        if handler is not None:
            handler(one)
        elif name in _LOAD_FAST or name in _FREE:
            if name == "LOAD_FROM_DICT_OR_DEREF":
                self._pop()
            self._stack.append(self._get(one.argval))
        elif name in _LOAD_TWO:
            self._stack += map(self._get, one.argval)
        elif name in _GLOBAL:
            self._load_name(one)
        elif name in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            self._use("sets", frozenset({Root("global", one.argval)}))
            self._effect(dis.stack_effect(one.opcode, one.arg, jump=False))
        elif name in _NEW:
            self._effect(dis.stack_effect(one.opcode, one.arg, jump=False))
            self._stack[-1] = NEW
        elif name.startswith("BUILD_"):
            self._build(one)
        else:
            self._effect(dis.stack_effect(one.opcode, one.arg, jump=False))

    def _load_name(self, one: dis.Instruction) -> None:
        if one.opname == "LOAD_FROM_DICT_OR_GLOBALS":
            self._pop()
        found = [frozenset({Root("global", one.argval)})]
        if one.opname == "LOAD_GLOBAL" and one.arg is not None and one.arg & 1:  # with NULL
            found.insert(0 if sys.version_info < (3, 13) else 1, NEW)
        self._stack += found

    def _build(self, one: dis.Instruction) -> None:
        taken = self._pop(1 - dis.stack_effect(one.opcode, one.arg, jump=False))
        self._stack.append(_union(taken))

    def _store_fast(self, one: dis.Instruction) -> None:
        self._set(one.argval, *self._pop())

    def _store_fast_load_fast(self, one: dis.Instruction) -> None:
        stored, loaded = one.argval
        self._set(stored, *self._pop())
        self._stack.append(self._get(loaded))

    def _store_fast_store_fast(self, one: dis.Instruction) -> None:
        for name in one.argval:
            self._set(name, *self._pop())

    def _store_deref(self, one: dis.Instruction) -> None:
        value = self._pop()
        if one.argval in self._free:
            self._use("sets", frozenset({Root("variable", one.argval)}))
        else:
            self._set(one.argval, *value)

    def _delete_deref(self, one: dis.Instruction) -> None:
        if one.argval in self._free:
            self._use("sets", frozenset({Root("variable", one.argval)}))

    def _load_attr(self, one: dis.Instruction) -> None:
        (owner,) = self._pop()
        self._stack.append(frozenset(root.then(one.argval) for root in owner))
        if sys.version_info >= (3, 12) and one.arg is not None and one.arg & 1:
            self._stack.append(NEW)

    def _load_method(self, one: dis.Instruction) -> None:
        self._load_attr(one)
        self._stack.append(NEW)

    def _load_super_attr(self, one: dis.Instruction) -> None:
        owner = self._pop(3)[-1]
        self._stack.append(frozenset(root.then(one.argval) for root in owner))
        self._stack += [NEW] * (one.arg is not None and one.arg & 1)

    def _store_attr(self, one: dis.Instruction) -> None:
        self._use("writes", self._pop(2)[1])

    def _delete_attr(self, one: dis.Instruction) -> None:
        self._use("writes", self._pop()[0])

    def _store_subscr(self, one: dis.Instruction) -> None:
        self._use("writes", self._pop(3)[1])

    def _delete_subscr(self, one: dis.Instruction) -> None:
        self._use("writes", self._pop(2)[0])

    def _store_slice(self, one: dis.Instruction) -> None:
        self._use("writes", self._pop(4)[1])

    def _binary_subscr(self, one: dis.Instruction) -> None:
        self._stack.append(frozenset(root.then("[]") for root in self._pop(2)[0]))

    def _binary_slice(self, one: dis.Instruction) -> None:
        self._stack.append(frozenset(root.then("[]") for root in self._pop(3)[0]))

    def _binary_op(self, one: dis.Instruction) -> None:
        if one.argrepr == "[]":
            self._binary_subscr(one)
            return
        left = self._pop(2)[0]
        augments = one.argrepr.endswith("=")
        if augments:
            self._use("augments", left)
        self._stack.append(left if augments else NEW)

    def _get_iter(self, one: dis.Instruction) -> None:
        self.iterated |= self._stack[-1]

    def _for_iter(self, one: dis.Instruction) -> None:
        self._stack.append(frozenset(root.then("[]") for root in self._stack[-1]))

    def _unpack_sequence(self, one: dis.Instruction) -> None:
        (value,) = self._pop()
        self._stack += [frozenset(root.then("[]") for root in value)] * (one.arg or 0)

    def _copy(self, one: dis.Instruction) -> None:
        self._stack.append(self._stack[-(one.arg or 1)])

    def _swap(self, one: dis.Instruction) -> None:
        at = -(one.arg or 1)
        self._stack[-1], self._stack[at] = self._stack[at], self._stack[-1]

    def _return_generator(self, one: dis.Instruction) -> None:
        self._stack.append(NEW)

    def _pop_top(self, one: dis.Instruction) -> None:
        self._pop()

    def _import_name(self, one: dis.Instruction) -> None:
        self._pop(2)
        self._stack.append(frozenset({Root("module", one.argval)}))

    def _import_from(self, one: dis.Instruction) -> None:
        self._stack.append(frozenset(root.then(one.argval) for root in self._stack[-1]))

    def _kw_names(self, one: dis.Instruction) -> None:
        self._keywords = self._constants[one.arg or 0]

    def _load_const(self, one: dis.Instruction) -> None:
        self._stack.append(NEW)
        if isinstance(one.argval, tuple) and sys.version_info >= (3, 13):  # names of keywords, if a call follows
            self._keywords = one.argval

    def _precall(self, one: dis.Instruction) -> None:
        """Do nothing: the call that follows takes all."""

    def _call(self, one: dis.Instruction) -> None:
        keywords, self._keywords = self._keywords if sys.version_info < (3, 13) else (), ()
        self._make_call(self._pop((one.arg or 0) + 2), keywords)

    def _call_kw(self, one: dis.Instruction) -> None:
        keywords, self._keywords = self._keywords, ()
        self._make_call(self._pop((one.arg or 0) + 3)[:-1], keywords)

    def _make_call(self, taken: list[Value], keywords: tuple[str, ...]) -> None:
        callee, given = taken[0] | taken[1], taken[2:]
        positional = len(given) - len(keywords)
        named = tuple(zip(keywords, given[positional:], strict=True))
        self._use("calls", callee, tuple(given[:positional]), named)
        self.handed |= _union(given)
        self._stack.append(_result(callee, given))

    def _call_function_ex(self, one: dis.Instruction) -> None:
        taken = self._pop(1 - dis.stack_effect(one.opcode, one.arg, jump=False))
        callee, given = taken[0] | taken[1], taken[1:]
        self._use("calls", callee, None, [("*", value) for value in given])
        self.handed |= _union(given)
        self._stack.append(_result(callee, given))


def _union(values: Iterable[Value]) -> Value:
    found: Value = NEW.union(*values)
    if len(found) > MOST_ROOTS:
        raise UnprovenError("too many values")
    return found


def _result(callee: Value, given: list[Value]) -> Value:
    """What a call may return: a part of the object whose method it is, or one of its arguments, as views of arrays."""
    shared = _union(given)
    through: list[Any] = [root.plain() for root in callee] if callee else ["()"]
    return frozenset(root.then("()") for root in callee) | {root.then(one) for root in shared for one in through}
