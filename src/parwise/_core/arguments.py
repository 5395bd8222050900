"""Make a `Call` from the user's arguments: each is checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .call import BY_INDEX, BY_ITEM, Call, Naming, Told, result_axes
from .indexing import checked_halo
from .inputs.arrays import InputArray, MaskedInput
from .inputs.blocks import make_blocks, per_axis
from .inputs.foreign import check_no_frame, is_duck, is_read_only, labelled_remedy, library_of, unlabelled_remedy
from .inputs.items import ItemColumn, is_constant, is_container, make_feed
from .inputs.source import MAX_READ_BYTES, ReadAhead
from .options.executors import is_thread_pool
from .options.number_checks import is_int
from .options.settings import Settings
from .results import Form, has_more, is_masked

# How long two arrays of `out` are compared at most, in NumPy's steps of 0.1 us: columns of one array take a few.
OVERLAP_WORK = 10_000

if TYPE_CHECKING:
    from .inputs.random import RandomStreams


def make_call(
    func: Any,
    arrays: tuple[Any, ...],
    *,
    settings: Settings,
    axis: Any = 0,
    args: Any = (),
    kwargs: Any = None,
    vectorized: Any = False,
    chunk: Any = None,
    depth: Any = 0,
    boundary: Any = None,
    out: Any = None,
    rng: Any = None,
    form: Form = "arrays",
    naming: Naming = BY_INDEX,
    transfer_seconds: Callable[[], float] = float,
    told: Callable[[], Told] | None = None,
    memory: Callable[[], int] | None = None,
) -> Call:
    """Check every argument before any work.

    `form`, `naming`, `transfer_seconds` and `told` go to the `Call` as they are. `memory` tells how many bytes are
    available, for arrays in files whose chunks lie across the order of elements.
    """
    _check_function(func, args)
    if not arrays:
        raise TypeError("no array to map over; write parallel_apply(func, array, axis=0)")
    if not isinstance(vectorized, bool):
        raise TypeError(f"vectorized must be a bool, got {vectorized!r} of type {type(vectorized).__name__}")
    kwargs = {} if kwargs is None else _kwargs(kwargs)
    axes = _axes(axis)
    if len(arrays) == 1:
        inputs: tuple[InputArray, ...] = (_input(arrays[0], 0, axes, vectorized),)
        grid = inputs[0].lengths
    else:
        inputs = tuple(_input(array, number, axes, vectorized) for number, array in enumerate(arrays))
        grid = _common_grid(inputs, axes)
    halo, bounds = None, None
    if vectorized:
        halo, bounds = make_blocks(chunk, depth, boundary, axes, grid, inputs)
    elif chunk is not None or type(depth) is not int or depth or boundary is not None:
        check_no_blocks(chunk, depth, boundary, axes)
    streams = None if rng is None else _streams(rng, func, kwargs)
    if settings.undecided:
        # An array of objects is copied, and the objects are not.
        private = 0 if any(one.as_object for one in inputs) else len(inputs)
        settings = settings.decided(lambda: _shared_change(func, private, inputs, args, kwargs, streams))
    targets = None if out is None else _out(out, axes, grid, vectorized)
    if settings.ignore:
        _check_gaps(targets or ())
    held_bytes = MAX_READ_BYTES
    if memory is not None and not (all(one.loaded for one in inputs) and all(map(_in_memory, targets or ()))):
        from .outputs.plan import plan_files  # most calls do without

        held_bytes = plan_files(inputs, targets or (), axes, grid, memory())
    return Call(
        func, inputs, args, kwargs, vectorized, axes, grid, bounds, halo, streams, targets, settings,
        None, form, naming, transfer_seconds, told, held_bytes,
    )  # fmt: skip


def _in_memory(target: Any) -> bool:
    return isinstance(target, np.ndarray)


def make_list_call(
    func: Any, iterables: tuple[Any, ...], *, args: Any, kwargs: Any, rng: Any, settings: Settings
) -> Call:
    """Check the arguments of a call over items of lists or iterators."""
    _check_function(func, args)
    if not iterables:
        raise TypeError("nothing to map over; the items come after the function, as in parallel_map(func, items)")
    for number, one in enumerate(iterables):
        if not (isinstance(one, Iterable) or hasattr(type(one), "__getitem__")) or getattr(one, "shape", None) == ():
            raise TypeError(
                f"iterable {number} is of type {type(one).__name__}, which cannot be iterated over; pass what "
                "all calls get in args=(...,)"
            )
        check_no_frame(one, number)
    kwargs = {} if kwargs is None else _kwargs(kwargs)
    streams = None if rng is None else _streams(rng, func, kwargs)
    if settings.undecided:
        settings = settings.decided(lambda: _change_in_items(func, iterables, args, kwargs, streams))
    any_thread = settings.executor == "threads" or is_thread_pool(settings.executor)
    feed = make_feed(iterables, any_thread, keep=bool(settings.verify))
    columns: Any = tuple(ItemColumn(feed, k) for k in range(len(iterables)))
    grid = (feed.count,)
    return Call(
        func, columns, args, kwargs, False, (0,), grid, None, None, streams, None, settings, feed, "list", BY_ITEM
    )


def _shared_change(
    func: Any, private: int, inputs: Iterable[Any], args: tuple[Any, ...], kwargs: dict[str, Any], streams: Any
) -> str | None:
    """What calls at the same time may change, in words, if anything."""
    from .inputs.reading.shared_state import PRIVATE, shared_change  # only a Python without the GIL asks

    shared = () if private else tuple(inputs)
    own = {} if streams is None else {"rng": PRIVATE}
    return shared_change(func, private, (*shared, *args), {**kwargs, **own})


def _change_in_items(
    func: Any, iterables: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any], streams: Any
) -> str | None:
    """What calls at the same time may change, in words, if anything: of items that may be one object, too."""
    if not all(map(is_container, iterables)):
        return "an iterator is read by the thread of the call alone"
    items = [next((one for one in each if not is_constant(one)), None) for each in iterables]
    return _shared_change(func, 0, items, args, kwargs, streams)


def _check_function(func: Any, args: Any) -> None:
    if not callable(func):
        raise TypeError(f"func must be callable, got {type(func).__name__}; the function comes first")
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}; for one argument write args=(x,)")


def check_callback(name: str, function: Any, args_name: str, args: Any) -> None:
    """Check a function that is called beside the mapped one, None for no such function, and its arguments."""
    if function is not None and not callable(function):
        raise TypeError(f"{name} must be callable, got {type(function).__name__}")
    if not isinstance(args, tuple):
        raise TypeError(f"{args_name} must be a tuple, got {type(args).__name__}; for one write {args_name}=(x,)")


def _kwargs(kwargs: Any) -> dict[str, Any]:
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a dict, got {type(kwargs).__name__}")
    for name in kwargs:
        if not isinstance(name, str):
            raise TypeError(f"kwargs must have names for keys, got {name!r}")
    return dict(kwargs)


def _axes(axis: Any) -> tuple[int, ...]:
    """`axis` as a tuple of ints of one sign."""
    if type(axis) is int:
        return (axis,)
    given: tuple[Any, ...] = axis if isinstance(axis, tuple) else (axis,)
    for one in given:
        if not is_int(one):
            raise TypeError(f"axis must be an int or a tuple of ints, got {axis!r}")
    if not given:
        raise ValueError("axis must name at least one axis, got ()")
    if len({one < 0 for one in given}) > 1:
        raise ValueError(f"axis must not mix signs, got {axis!r}; count all axes from the same end")
    return tuple(int(one) for one in given)


def _input(array: Any, number: int, axes: tuple[int, ...], vectorized: bool) -> InputArray:
    array = _checked_array(array, number)
    ndim = len(array.shape)
    for axis in axes:
        if not -ndim <= axis < ndim:
            raise ValueError(
                f"axis {axis} is out of bounds for array {number}, which has {ndim} dimension(s), shape "
                f"{tuple(array.shape)}"
            )
    if len(axes) == 1 and isinstance(array, np.ndarray):  # saves a small call 1 us
        return InputArray(array, (axes[0] % ndim,), vectorized)
    normal = tuple(axis % ndim for axis in axes)
    if len(set(normal)) < len(normal):
        raise ValueError(f"axis names one axis twice: {axes!r}")
    if isinstance(array, np.ndarray) or hasattr(array, "memory_strides"):  # the latter reads ahead itself
        return InputArray(array, normal, vectorized)
    return _open(array, number, normal, vectorized)


def _open(source: Any, number: int, axes: tuple[int, ...], vectorized: bool) -> InputArray:
    """Make the input of an array that is not in memory, by what its first elements read as."""
    # A variable of netCDF4 may be told to give masked arrays only where values are masked.
    masked = getattr(source, "mask", False) is True and getattr(source, "always_mask", True) is False
    if not masked:
        reader = ReadAhead(source, axes, f"array {number}")
        try:
            return InputArray(reader, axes, vectorized)
        except TypeError:
            if not reader.masked:
                raise
    read_as_loop: Any = MaskedInput(source, axes, vectorized)
    return read_as_loop  # type: ignore[no-any-return]


def _checked_array(array: Any, number: int) -> Any:
    """Return `array` if the function can get the same elements from it as in a plain loop."""
    kind = type(array).__name__
    if is_masked(type(array)):
        raise TypeError(
            f"array {number} is a MaskedArray, whose mask would be lost; pass a.filled(value), "
            "or map a.data and np.ma.getmaskarray(a) together"
        )
    if isinstance(array, np.ndarray):
        if type(array) not in (np.ndarray, np.memmap, np.recarray):
            raise TypeError(
                f"array {number} is of the ndarray subclass {kind}, which parwise cannot rebuild in a worker; "
                f"pass np.asarray(a), and make a {kind} of it in func"
            )
        return array
    if isinstance(array, np.generic) or np.isscalar(array):
        raise TypeError(f"array {number} is a scalar of type {kind}; pass it in args=(...,) if every call is to get it")
    if hasattr(array, "loc") or hasattr(array, "to_numpy"):  # indexed by label: pandas, xarray
        raise TypeError(f"array {number} is a {kind}, whose labels would be lost; {labelled_remedy(array)}")
    if library_of(array) == "pandas" and hasattr(array, "groups"):
        raise TypeError(
            f"array {number} is a {kind}, which has groups in place of elements; write "
            "parallel_map(func, [group for _, group in df.groupby(...)])"
        )
    if not (isinstance(getattr(array, "dtype", None), np.dtype) and hasattr(array, "shape")):
        raise TypeError(f"array {number} is a {kind}, not an array; {unlabelled_remedy(array)}")
    if not hasattr(array, "__getitem__"):
        raise TypeError(f"array {number} is a {kind} that cannot be indexed; pass np.asarray(x)")
    if is_duck(array):
        raise TypeError(
            f"array {number} is a {type(array).__module__}.{kind}, which would lose what makes it one "
            "(its unit, or the zeros it leaves out); pass an ndarray of its values"
        )
    return array


def _common_grid(inputs: tuple[InputArray, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    first = inputs[0].lengths
    for number, one in enumerate(inputs):
        if one.lengths != first:
            along = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
            shapes = ", ".join(str(tuple(i.source.shape)) for i in inputs)
            raise ValueError(
                f"arrays differ in length along {along}: array 0 has {first}, array {number} has "
                f"{one.lengths} (shapes {shapes}); pass what all calls get whole in args=(...,)"
            )
    return first


def check_no_blocks(chunk: Any, depth: Any, boundary: Any, axes: tuple[Any, ...]) -> None:
    """Raise a ValueError if an element function is given a halo, or the length of blocks."""
    for one in per_axis("depth", depth, axes, 0):
        checked_halo(one, boundary, vectorized=False)
    if chunk is not None:
        raise ValueError(
            f"chunk={chunk!r} is the length of blocks, for functions that take blocks: pass "
            "vectorized=True if func is one. If func takes one element, leave chunk out: parwise chooses"
        )


def _streams(rng: Any, func: Any, kwargs: dict[str, Any]) -> RandomStreams:
    from .inputs.random import make_random_streams

    return make_random_streams(rng, func, kwargs)


def _out(out: Any, axes: tuple[int, ...], grid: tuple[int, ...], vectorized: bool) -> tuple[Any, ...]:
    targets = out if isinstance(out, tuple) else (out,)
    for number, target in enumerate(targets):
        if any(_are_one(target, before) for before in targets[:number]):
            raise ValueError(
                "out has one array for two results, of which only the last would be left; pass an array for each"
            )
        if not all(hasattr(target, name) for name in ("shape", "dtype", "__setitem__")):
            raise TypeError(
                f"out must be an array (or a tuple of arrays for a tuple result), got {type(target).__name__}"
            )
        if is_read_only(target):
            raise ValueError("out is read-only; pass an array that can be written to")
        if is_masked(type(target)):
            raise TypeError("out is a MaskedArray, whose mask would not be set; pass out.data")
        if is_duck(target) or has_more(type(target)):
            raise TypeError(
                f"out is a {type(target).__module__}.{type(target).__name__}, whose unit or the like the "
                "results do not have; pass an ndarray"
            )
        shape = tuple(target.shape)
        if len(shape) < len(grid):
            raise ValueError(f"out has shape {shape}, too few dimensions for {len(grid)} mapped axes of lengths {grid}")
        own = result_axes(axes, len(shape))
        found = tuple(shape[axis] for axis in own)
        if found != grid and not vectorized:
            raise ValueError(
                f"out has shape {shape}, with {found} along the mapped axes {own}; the result has {grid} there"
            )
    return targets


def _are_one(target: Any, other: Any) -> bool:
    """True if two targets have memory in common, as columns of one array, which lie between each other, do not."""
    if target is other or not (isinstance(target, np.ndarray) and isinstance(other, np.ndarray)):
        return target is other
    try:
        return np.shares_memory(target, other, max_work=OVERLAP_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return False


def _check_gaps(targets: tuple[Any, ...]) -> None:
    """Raise if an array in `out` has no value for a missing result."""
    for target in targets:
        if target.dtype.kind not in "fcmMO":
            raise ValueError(
                f"out has dtype {target.dtype}, which has no value for a gap, as errors='ignore' may need "
                "one; pass an out of floats, dates or objects, or errors='raise'"
            )
