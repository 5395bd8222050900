"""An exception that a signal's handler raises between two rounds of a loop must not go past the block around the loop.

Python 3.13 compiles some jumps back, as that of ``while condition:``, outside the range of the block: what is raised
there skips ``finally`` and leaves a lock locked (https://github.com/python/cpython/issues/130279). In another function
the loop is safe, since the call lies within the range.
"""

from __future__ import annotations

import dis
from itertools import pairwise
from pathlib import Path
from types import CodeType

import pytest

import parwise

FILES = sorted(Path(parwise.__file__).parent.rglob("*.py"))


def codes(code):
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from codes(one)


def handlers_at(offset, entries):
    """Offsets of the handlers for an exception at an instruction, the innermost first."""
    found = []
    while (entry := next((one for one in entries if one.start <= offset < one.end), None)) is not None:
        if entry.target in found:
            break
        found.append(entry.target)
        offset = entry.target
    return found


def is_for_all(handler, instructions):
    """True for `finally`, `with` and ``except BaseException``: others let through what a handler of a signal raises."""
    following = [one for one in instructions if one.offset >= handler]
    if following[0].opname != "PUSH_EXC_INFO":  # a comprehension restores its variable
        return False
    for before, one in pairwise(following[1:]):
        if one.opname == "CHECK_EXC_MATCH":
            return before.argval == "BaseException"
        if before.opname in ("RERAISE", "POP_EXCEPT", "WITH_EXCEPT_START"):
            return True
    return True


def unguarded(code):
    """Lines of jumps back that are outside of a block in which their loop is."""
    instructions, entries = list(dis.get_instructions(code)), dis.Bytecode(code).exception_entries
    for before, one in pairwise(instructions):
        if before.opname == "CLEANUP_THROW":  # a generator that another one delegates to has raised
            continue
        if one.opname in ("JUMP_BACKWARD", "POP_JUMP_BACKWARD_IF_TRUE", "POP_JUMP_BACKWARD_IF_FALSE"):
            missing = set(handlers_at(one.argval, entries)) - set(handlers_at(one.offset, entries))
            if any(is_for_all(handler, instructions) for handler in missing):
                yield one.positions.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FILES[0].parent).as_posix())
def test_no_loop_is_left_past_its_block(path):
    top = compile(path.read_text(), str(path), "exec")
    found = {f"{code.co_qualname}, line {line}" for code in codes(top) for line in unguarded(code)}
    assert not found, "move the loop to a function of its own"
