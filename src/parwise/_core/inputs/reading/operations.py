"""What operators, indexing, attributes and known calls make of values, where they are known only to read arguments."""

from __future__ import annotations

from .known import INT_ATTRIBUTES, METHODS, TUPLE_ATTRIBUTES, VIEW_ATTRIBUTES, Rule, names_a_dtype
from .values import (
    ARRAY,
    ARRAYS,
    DTYPE,
    EXCEPTION,
    INT,
    NUMBER,
    NUMBERS,
    OPERANDS,
    PLAIN,
    RANGE,
    SLICE,
    TYPED_ARRAY,
    UnprovenError,
    Value,
    holds_data,
    is_harmless,
    joined,
    shared,
)

#: Operators of two ints whose result is one.
_INT_OPERATORS = frozenset({"+", "-", "*", "//", "%", "<<", ">>", "&", "|", "^"})
_OPERATORS = _INT_OPERATORS | {"/", "@", "**"}
#: Methods that change a list, dict or set that the function has made.
_CONTAINER_METHODS = frozenset({"append", "extend", "insert", "add", "update", "pop", "get", "items", "keys", "values"})


def binary(operator: str, left: Value, right: Value) -> Value:
    """The result of a binary operator; one with "=" changes its left operand, if that can be changed."""
    if operator.removesuffix("=") not in _OPERATORS:
        raise UnprovenError(operator)
    if {left.kind, right.kind} <= OPERANDS:
        if operator.endswith("=") and left.kind in ("shared", "array"):
            if left.kind == "shared":
                raise UnprovenError(f"{operator} may write to an argument")
            return left if _is_typed(right) else ARRAY  # a number of NumPy's becomes another object
        return _arithmetic(operator.removesuffix("="), left, right)
    if is_harmless(left) and is_harmless(right):
        return PLAIN
    raise UnprovenError(f"operands of {operator}: {left.kind}, {right.kind}")


def _arithmetic(operator: str, left: Value, right: Value) -> Value:
    kinds = {left.kind, right.kind}
    if left == right == INT and operator in _INT_OPERATORS:
        return INT
    if kinds <= NUMBERS:
        return NUMBER
    return TYPED_ARRAY if _is_typed(left) and _is_typed(right) else ARRAY


def _is_typed(value: Value) -> bool:
    """True for what is for certain an array, or a number of NumPy's, without objects.

    An int of Python's beyond 64 bits makes an array of objects, which can hold an argument.
    """
    return value == TYPED_ARRAY or (value.kind == "shared" and value.detail is not None)


def unary(operand: Value) -> Value:
    """The result of ``-``, ``+``, ``~`` or ``abs``."""
    if operand.kind in NUMBERS:
        return operand
    if operand.kind in ("array", "shared"):
        return TYPED_ARRAY if _is_typed(operand) else ARRAY
    if is_harmless(operand):
        return PLAIN
    raise UnprovenError(f"operand: {operand.kind}")


def compare(left: Value, right: Value) -> Value:
    """The result of a comparison."""
    result = binary("-", left, right)  # which runs no more, and returns as much
    return NUMBER if result.kind in NUMBERS else TYPED_ARRAY if result.kind == "array" else result


def contains(item: Value, container: Value) -> Value:
    """The result of ``item in container``."""
    if is_harmless(item) and (is_harmless(container) or container.kind == "shared"):
        return NUMBER
    raise UnprovenError("in")


def truth(value: Value) -> None:
    """Check that the truth of a value can be asked for."""
    if not holds_data(value):
        raise UnprovenError(f"truth of {value.kind}")


def subscript(value: Value, index: Value) -> Value:
    """The result of indexing: of a shared array it is shared, unless it is one number."""
    if not (is_harmless(index) or (index.kind == "shared" and value.kind in ("shared", "array"))):
        raise UnprovenError(f"index: {index.kind}")
    if value.kind == "shared":
        return _part(value.detail, index)
    if value.kind == "tuple":
        return joined(value.detail) if index.kind in NUMBERS and value.detail else _plain(value)
    if value.kind in ("array", "dtype"):
        return value if value.kind == "array" else PLAIN
    if value == ARRAYS and index.kind in NUMBERS:
        return ARRAY
    return _plain(value)


def _part(ndim: int | None, index: Value) -> Value:
    parts = index.detail if index.kind == "tuple" else (index,)
    if ndim is None or not all(one in (INT, SLICE) for one in parts) or len(parts) > ndim:
        return shared(None)
    left = ndim - parts.count(INT)
    return shared(left) if left else NUMBER


def _plain(value: Value) -> Value:
    if is_harmless(value):
        return PLAIN
    raise UnprovenError(f"part of {value.kind}")


def store(container: Value, index: Value, value: Value) -> None:
    """Check that ``container[index] = value`` writes to what the function has made, and keeps no argument there."""
    if not (is_harmless(index) or index.kind == "shared"):
        raise UnprovenError("index")
    made_here = container.kind == "array" or container == PLAIN
    # Only an array without objects copies what it gets.
    if not made_here or not (is_harmless(value) or (value.kind == "shared" and container == TYPED_ARRAY)):
        raise UnprovenError(f"writes {value.kind} to {container.kind}")


def item_of(value: Value) -> Value:
    """What iterating over a value yields."""
    if value.kind == "iterator":
        return value.detail  # type: ignore[no-any-return]
    if value == RANGE:
        return INT
    if value.kind == "shared":
        ndim = value.detail
        return shared(None) if ndim is None else NUMBER if ndim == 1 else shared(ndim - 1)
    if value.kind == "tuple":
        return joined(value.detail)
    if value.kind == "array":
        return value
    return ARRAY if value == ARRAYS else _plain(value)


def unpack(value: Value, count: int) -> list[Value]:
    """The items of a value that is unpacked."""
    if value.kind == "tuple":
        if len(value.detail) != count:
            raise UnprovenError("unpacked to another number of names")
        return list(value.detail)
    return [item_of(value)] * count


def attribute(value: Value, name: str) -> Value:
    """An attribute that is no method; a method, as such, can only be called."""
    if value.kind in OPERANDS:
        if name in INT_ATTRIBUTES:
            return INT
        if name in TUPLE_ATTRIBUTES:
            return Value("tuple", (INT,) * value.detail) if value.kind == "shared" and value.detail else PLAIN
        if name == "dtype" and _is_typed(value):
            return DTYPE
        if name in VIEW_ATTRIBUTES:
            return value
    if holds_data(value):
        return Value("method", (value, name))
    raise UnprovenError(f"attribute {name} of {value.kind}")


def call_method(value: Value, name: str, given: list[Value], named: dict[str, Value]) -> Value:
    """The result of a method of an array, or of a container that the function has made."""
    if value.kind in OPERANDS and name in METHODS:
        rule = METHODS[name]
        _check(rule, given, named)
        return _result(rule, [value, *given], named)
    if value == PLAIN and name in _CONTAINER_METHODS and not named and all(map(is_harmless, given)):
        return PLAIN
    raise UnprovenError(f"method {name} of {value.kind}")


def call_known(rule: Rule, given: list[Value], named: dict[str, Value]) -> Value:
    """The result of a known function."""
    if rule.result == "exception":
        if named or not all(map(is_harmless, given)):
            raise UnprovenError("an exception holds an argument")
        return EXCEPTION
    if rule.name == "isinstance":
        return _isinstance(given, named)
    if rule.result == "builtin":
        return _call_builtin(rule, given, named)
    _check(rule, given, named)
    return _result(rule, given, named)


def _check(rule: Rule, given: list[Value], named: dict[str, Value]) -> None:
    if not rule.least <= len(given) <= rule.most or not rule.keywords.issuperset(named):
        raise UnprovenError(f"arguments of {rule.name}")
    for name, one in named.items():
        dtype = one == DTYPE or (one.kind == "known" and names_a_dtype(one.detail))
        if not (dtype if name == "dtype" else is_harmless(one)):
            raise UnprovenError(f"{name} of {rule.name}")
    if rule.name == "astype":
        if not (given[0] == DTYPE or (given[0].kind == "known" and names_a_dtype(given[0].detail))):
            raise UnprovenError("dtype")
    elif not all(map(holds_data, given)):
        raise UnprovenError(f"arguments of {rule.name}")
    elif rule.name == "clip" and not {one.kind for one in given} <= OPERANDS:
        raise UnprovenError("clip without bounds")


def _result(rule: Rule, given: list[Value], named: dict[str, Value]) -> Value:
    made: dict[str, Value] = {
        "array": ARRAY, "typed": TYPED_ARRAY, "astype": TYPED_ARRAY, "number": NUMBER, "int": INT, "plain": PLAIN,
        "arrays": ARRAYS, "errstate": Value("errstate"),
    }  # fmt: skip
    if rule.result in made:
        return made[rule.result]
    first = given[0]
    if rule.result == "like":
        return TYPED_ARRAY if "dtype" in named or _is_typed(first) else ARRAY
    if rule.result == "view" and first.kind in ("shared", "array"):
        return shared(None) if first.kind == "shared" else first
    if rule.result == "view" and is_harmless(first):
        return ARRAY
    raise UnprovenError(rule.name)


def _isinstance(given: list[Value], named: dict[str, Value]) -> Value:
    """Only for types that are known: others may have a check of their own."""
    if named or len(given) != 2 or not holds_data(given[0]):
        raise UnprovenError("isinstance")
    kinds = given[1].detail if given[1].kind == "tuple" else (given[1],)
    if all(one.kind == "known" for one in kinds):
        return NUMBER
    raise UnprovenError("isinstance")


def _call_builtin(rule: Rule, given: list[Value], named: dict[str, Value]) -> Value:
    name, count = rule.name, len(given)
    if named or not rule.least <= count <= rule.most:
        raise UnprovenError(f"arguments of {name}")
    if name == "range" and all(map(is_harmless, given)):
        return RANGE
    if name in ("enumerate", "zip") and all(holds_data(one) or one.kind == "iterator" for one in given):
        items = tuple(map(item_of, given))
        return Value("iterator", Value("tuple", items if name == "zip" else (INT, items[0])))
    if name == "abs" and count == 1:
        return unary(given[0])
    if {one.kind for one in given} <= NUMBERS and name in ("min", "max", "round"):
        return given[0] if len(set(given)) == 1 and name != "round" else NUMBER
    if count > 1 and name in ("min", "max") and all(map(is_harmless, given)):
        return PLAIN
    return _consume(name, given)


def _consume(name: str, given: list[Value]) -> Value:
    """The result of a builtin function that goes through one iterable."""
    item = item_of(given[0])
    if len(given) == 1 and name in ("any", "all"):
        truth(item)
        return NUMBER
    if len(given) == 1 and is_harmless(item):
        if name in ("list", "tuple", "sorted"):
            return PLAIN
        if name in ("min", "max", "sum"):
            return item if item.kind in NUMBERS else ARRAY if item.kind == "array" else PLAIN
    if len(given) == 1 and name == "sum" and item.kind == "shared":
        return ARRAY  # 0 and the first item are a new array
    raise UnprovenError(f"{name} of {given[0].kind}")
