"""The header of a journal: what the result depends on, and which of it has changed."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from ..._core.call import Call
from ..._core.results import is_masked
from .digest import Digester, Parts, Sink
from .files import hash_of, path_of, state_of_file

# Bytes of an array that are read at a time.
READ_BYTES = 2**26
# Number of differences that an error names.
MOST_NAMED = 5


def header_of(call: Call, digester: Digester) -> dict[str, str]:
    """What the result of a call depends on, by its name: texts, or digests, which begin with "#"."""
    import parwise  # for its version

    own = {
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "parwise": parwise.__version__,
        "the kind of machine": platform.machine(),
        "the kind of call": "parallel_map" if call.feed is not None else "parallel_apply",
    }
    parts = Parts(digester)
    parts.add(call.func, "the function")
    for number, value in enumerate(call.args):
        parts.add(value, f"args[{number}]")
    for name, value in call.kwargs.items():
        parts.add(value, f"kwargs[{name!r}]")
    if call.settings.setup is not None:
        parts.add(call.settings.setup, "setup")
    own |= parts.all()
    own["rng"] = "None" if call.streams is None else call.streams.description
    if call.feed is None:
        return own | _of_arrays(call, digester)
    # The items of two iterables are kept as pairs, as those of one with pairs are.
    return own | {"the number of iterables": str(len(call.inputs))}


def _of_arrays(call: Call, digester: Digester) -> dict[str, str]:
    """What the result depends on in a call over arrays."""
    outs = call.out or ()
    written = {path_of(one) for one in outs}
    found = {
        "axis": str(call.axis),
        "vectorized": str(call.vectorized),
        "the blocks": "None" if call.bounds is None else f"#{hash_of(repr(call.bounds).encode())}",
        "depth and boundary": "None" if call.halo is None else _text_of_halo(call.halo),
        "the number of arrays": str(len(call.inputs)),
        "the number of arrays in out": str(len(outs)),
    }
    for number, one in enumerate(call.inputs):
        source = getattr(one.source, "source", one.source)
        found[f"the shape and dtype of array {number}"] = f"{tuple(source.shape)} {source.dtype}"
        # A file that out is written to changes all the time.
        found[f"array {number}"] = _state_of_array(source, digester, path_of(source) not in written - {None})
    for number, one in enumerate(outs):
        found[f"the shape, dtype and chunks of out[{number}]"] = (
            f"{tuple(one.shape)} {one.dtype} {getattr(one, 'shards', None) or getattr(one, 'chunks', None)}"
        )
    return found


def _text_of_halo(halo: Any) -> str:
    return f"{halo.depth} {halo.boundary} {halo.value!r}"


def _state_of_array(array: Any, digester: Digester, by_file: bool) -> str:
    """The state of an array's file, or the digest of all its values."""
    state = state_of_file(array) if by_file and not array.dtype.hasobject else None
    if state is not None:
        return state
    sink = Sink()
    if isinstance(array, np.ndarray):
        sink.write(repr((array.strides, array.flags.writeable)).encode())
    length, step = array.shape[0], _rows_per_read(array)
    for at in range(0, length, step):
        part = array[at : at + step]
        if isinstance(part, np.ndarray) and not part.dtype.hasobject and not is_masked(type(part)):
            sink.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
        else:
            sink.write(digester.digest(part).encode())
    return f"#{sink.hash.hexdigest()}"


def _rows_per_read(array: Any) -> int:
    """Rows of an array that are read at a time: whole chunks, where there are any."""
    rows = max(1, READ_BYTES // max(1, array.dtype.itemsize * int(np.prod(array.shape[1:]))))
    chunks = getattr(array, "chunks", None)
    first = chunks[0] if isinstance(chunks, tuple | list) else 1
    chunk = max(1, max(first) if isinstance(first, tuple) else int(first))
    whole: int = max(1, rows // chunk) * chunk
    return whole


def differences(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """What has changed, in words.

    Examples
    --------
    >>> differences({"NumPy": "2.3.1", "x": "#1f"}, {"NumPy": "2.4.0", "x": "#2e", "y": "#3d"})
    ['NumPy 2.3.1 then, 2.4.0 now', 'x changed', 'y is new']
    """
    found = []
    for name in [*then, *(one for one in now if one not in then)]:
        before, after = then.get(name), now.get(name)
        if before == after:
            continue
        if before is None:
            found.append(f"{name} is new")
        elif after is None:
            found.append(f"{name} is gone")
        elif before.startswith("#") or after.startswith("#"):
            found.append(f"{name} changed")
        else:
            found.append(f"{name} {before} then, {after} now")
    return found


def check_header(path: str, then: dict[str, str], now: dict[str, str]) -> None:
    """Raise a ValueError, with the differences named, if a journal is that of another run."""
    found = differences(then, now)
    if not found:
        return
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    raise ValueError(
        f"resume={path!r} is the journal of a different call: {'; '.join(found[:MOST_NAMED])}{more}. "
        "Make the same call as then to continue it, or remove the journal to start again"
    )
