"""What to write in place of an unknown option: other libraries have other names for what parwise does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from .shown import shown

# How alike a misspelt name of another library has to be, of 1.
CLOSE = 0.8
# A longer value is left out of the line to write.
MOST_CHARACTERS = 40

_EXECUTORS = {
    "threads": ("thread", "threads", "threading", "multithreading", "threadpool"),
    "serial": ("serial", "sequential", "sync", "synchronous", "single-threaded", "debug"),
    "processes": ("process", "processes", "processpool", "multiprocessing", "loky", "fork", "forkserver", "spawn"),
}
_BOUNDARIES = {"periodic": "wrap", "edge": "nearest", "mirror": "reflect"}


def _workers(value: Any) -> str:
    if isinstance(value, int) and value > 0 and not isinstance(value, bool):
        return f"write workers={value}"
    return "leave it out: workers=None, the default, takes every CPU that this process may use"


def _executor(value: Any) -> str:
    for name, words in _EXECUTORS.items():
        if isinstance(value, str) and value.lower() in words:
            default = ", the default" if name == "processes" else ""
            return f"write executor={name!r}{default}"
    return "write executor='processes' (the default), 'threads' or 'serial', or pass an executor or a Dask client"


def _progress(value: Any) -> str:
    return "write progress=True" if value else "leave it out: progress=False is the default"


def _no_progress(value: Any) -> str:
    return "leave it out: progress=False is the default" if value else "write progress=True"


def _label(value: Any) -> str:
    return f"write progress={_value(value)}, the label of the bar" if isinstance(value, str) else _progress(value)


def _boundary(value: Any) -> str:
    written = _BOUNDARIES.get(value, value) if isinstance(value, str) else value
    return f"write boundary={shown(written)}, with depth and vectorized=True"


def _written(name: str, more: str = "") -> Callable[[Any], str]:
    return lambda value: f"write {name}={_value(value)}{more}"


def _text(text: str) -> Callable[[Any], str]:
    return lambda value: text


_RNG = _written("rng", ", and take rng= in the function: a NumPy Generator of its own for each element")
_LEAVE_SIZE = _text(
    "leave it out: parwise decides how many elements a worker gets at once (chunk= is the length of a block, with "
    "vectorized=True)"
)
_LEAVE_START = _text("leave it out: all workers start in the same way, and take over the state of this process")
_LEAVE_DTYPE = _text("leave it out: results have the dtype that the function returns; an out= may have another one")
_LEAVE_MEMORY = _text("leave it out: workers get large arrays through shared memory, without files")
_LEAVE_DIMS = _text("leave it out: .par.map(f, dim) loops over dim, and f gets the other dimensions")

_LEAVE_LAZY = _text("leave it out: calls on Dask's blocks stay lazy, and all others are computed at once")
_LEAVE_JOIN = _text("leave it out: arrays mapped together must have equal coordinates; xr.align makes them so")
_VECTORIZED = _text(
    "leave it out: the function is called once for each element (vectorized=True is for a function that takes blocks)"
)
_SIGNATURE = _text("leave it out: axis= says what is looped over (parwise.vectorize, like NumPy's, takes a signature=)")
_BY_PLACE = _text("pass the function, and then what it is mapped over, by position: without names")
_SAME = _text("write kwargs={...}: what is in kwargs, or args, is the same for every element")
_SETUP = _text(
    "write setup=f, a function without arguments that each worker calls first, or make a "
    "parwise.Pool(initializer=..., initargs=...) and pass executor=pool"
)
_CALLBACK = _text(
    "leave it out: use parallel_imap, and call it with each result in the loop, or progress= with a function of "
    "(done, total)"
)
_BAR = _text("write progress=True, or pass a function of (done, total) that shows a bar of your own")


#: For each group of names: the argument of parwise, "" if there is none; what to write, by the value; and the names.
#: Of several groups with one name the first one counts whose argument the called function has.
_GROUPS: list[tuple[str, Callable[[Any], str], str]] = [
    (
        "workers",
        _workers,
        "n_jobs njobs jobs processes n_processes num_processes nproc nprocs n_procs max_workers num_workers nb_workers "
        "n_workers cpus ncpus n_cpus num_cpus cores ncores n_cores num_cores n_threads num_threads nthreads threads "
        "pool_size",
    ),
    ("executor", _executor, "backend scheduler prefer parallelism use_threads pool engine client cluster thread_pool"),
    ("", _LEAVE_START, "start_method mp_context context use_dill require nesting_level cpu_ids daemon"),
    (
        "",
        _LEAVE_SIZE,
        "chunksize chunk_size batch_size pre_dispatch n_splits iterable_len max_tasks_active npartitions chunks "
        "min_chunk_size allow_rechunk",
    ),
    ("", _LEAVE_MEMORY, "max_nbytes mmap_mode temp_folder use_memory_fs shared_memory"),
    ("", _text("leave it out: workers that use too much memory are replaced"), "maxtasksperchild worker_lifespan"),
    ("progress", _progress, "verbose progress_bar progressbar show_progress show_progress_bars pbar use_tqdm bar tqdm"),
    ("progress", _no_progress, "disable quiet silent no_progress"),
    ("progress", _label, "desc label description title"),
    (
        "progress",
        _BAR,
        "unit leave ncols total mininterval progress_bar_options progress_bar_style tqdm_class tqdm_kwargs",
    ),
    ("rng", _RNG, "seed seeds random_state random_seed generator"),
    ("depth", _written("depth", ", with vectorized=True"), "overlap halo padding pad n_overlap"),
    ("boundary", _boundary, "mode border boundaries extend_mode pad_mode"),
    (
        "output_dtypes",
        _text("write output_dtypes=[...], one for each result"),
        "dtype dtypes meta out_dtype output_dtype otypes",
    ),
    ("", _LEAVE_DTYPE, "dtype dtypes meta out_dtype output_dtype otypes template"),
    (
        "args",
        _text("write args=(...,), a tuple of further arguments of every call"),
        "func_args fargs f_args fn_args extra_args extra_arguments op_args",
    ),
    (
        "kwargs",
        _written("kwargs"),
        "func_kwargs fkwargs f_kwargs fn_kwargs kwds extra_kwargs extra_keywords op_kwargs keywords params",
    ),
    (
        "args",
        _text("write args=(...,): what is in args goes to each worker once"),
        "shared_objects shared static_args",
    ),
    ("setup", _SETUP, "initializer initargs init_fn worker_init initializer_args init"),
    ("timeout", _written("timeout"), "task_timeout max_time time_limit timeout_s element_timeout"),
    ("retries", _written("retries"), "retry max_retries n_retries num_retries attempts"),
    (
        "errors",
        _text("write errors='ignore', which leaves a gap where the function raises"),
        "on_error error raise_errors ignore_errors return_exceptions error_callback skip_errors error_score "
        "raise_on_error",
    ),
    ("", _CALLBACK, "callback callbacks on_result on_done done_callback"),
    (
        "resume",
        _text("write resume=path: the same call, made again after its process was killed, continues where it stopped"),
        "checkpoint cache cache_dir restart journal save_dir",
    ),
    ("", _text("use parallel_imap, which yields results as soon as they are there"), "return_as as_generator lazy"),
    ("out", _written("out"), "output out_file destination target"),
    ("axis", _written("axis"), "axes mapped_axis channel_axis batch_axis along"),
    ("axis", _text("write axis=, the axes to loop over, by number"), "dims core_dims iter_dims"),
    ("", _LEAVE_DIMS, "dims core_dims input_core_dims exclude_dims iter_dims"),
    ("vectorized", _VECTORIZED, "vectorize vectorised batched"),
    ("", _SIGNATURE, "signature"),
    ("", _BY_PLACE, "func function fn func1d pyfunc iterable iterables items array arrays arr a x data"),
    ("kwargs", _SAME, "excluded constants"),
    ("", _LEAVE_LAZY, "dask compute dask_gufunc_kwargs"),
    ("", _LEAVE_JOIN, "join dataset_join fill_value dataset_fill_value"),
    ("starmap", _text("write starmap=True: the parts of each item are arguments"), "star unpack expand_args"),
    ("ordered", _text("write ordered=False: results come as they are ready"), "unordered as_completed keep_order"),
    ("drop_none", _written("drop_none"), "skip_none dropna drop_na filter_none"),
]
_SYNONYMS: dict[str, list[tuple[str, Callable[[Any], str]]]] = {}
for _own, _remedy, _names in _GROUPS:
    for _name in _names.split():
        _SYNONYMS.setdefault(_name, []).append((_own, _remedy))

#: Arguments that only some functions have, with these functions.
_ELSEWHERE = {
    **dict.fromkeys(("axis", "vectorized", "chunk", "depth", "boundary", "out"), "parallel_apply, for arrays"),
    **dict.fromkeys(("drop_none", "starmap"), "parallel_map and parallel_imap"),
    "ordered": "parallel_imap, which yields results as soon as they are there",
    "dim": ".par.map of xarray objects; for an array write axis=",
    **dict.fromkeys(("output_core_dims", "output_dtypes", "output_sizes", "keep_attrs"), ".par.map of xarray objects"),
    "as_xarray": ".par.map of xarray objects",
    **dict.fromkeys(("on_missing_dim", "core_dims"), ".par.map of a Dataset or a DataTree"),
    "rng": "parallel_apply, parallel_map, parallel_imap and .par.map",
    "args": "parallel_apply, parallel_map, parallel_imap and .par.map",
    "kwargs": "parallel_apply, parallel_map, parallel_imap and .par.map",
}


def unknown_option(name: str, value: Any, names: Collection[str], func: Any = None) -> str:
    """The message on an unknown keyword argument: what to write in its place.

    Parameters
    ----------
    names : collection of str
        The keyword arguments that there are.
    func : callable, optional
        The mapped function, which may have been meant.

    Examples
    --------
    >>> unknown_option("n_jobs", 2, ["workers", "progress"])
    "unknown option 'n_jobs': write workers=2"
    >>> unknown_option("sigma", 2, ["workers", "kwargs"], lambda image, sigma: image)
    "unknown option 'sigma': the function takes 'sigma'; pass kwargs={'sigma': 2}"
    """
    hints = [one for one in (_of_function(name, value, names, func), _of_parwise(name, value, names)) if one]
    hint = "; for parwise itself, ".join(hints) or _near(name, value, names) or f"the options are {', '.join(names)}"
    return f"unknown option {name!r}: {hint}"


def meant(name: str, value: Any, names: Collection[str]) -> str:
    """What to write in place of a name that is none of `names`, nor an option; empty if nobody knows."""
    if any(own in names for own, _ in _SYNONYMS.get(name, [])):
        return _of_parwise(name, value, names)
    return "" if name in _SYNONYMS else _near(name, value, names)


def _of_function(name: str, value: Any, names: Collection[str], func: Any) -> str:
    if not takes(func, name):
        return ""
    label = getattr(func, "__name__", "")
    what = f"{label} takes" if label.isidentifier() else "the function takes"
    if "kwargs" in names:
        return f"{what} {name!r}; pass kwargs={{{name!r}: {_value(value)}}}"
    return f"{what} {name!r}; pass it in the call, as {name}={_value(value)}"


def _of_parwise(name: str, value: Any, names: Collection[str]) -> str:
    rows = _SYNONYMS.get(name, [])
    for own, remedy in rows:
        if not own or own in names:
            return remedy(value)
    own = next((own for own, _ in [*rows, (name, None)] if own in _ELSEWHERE), "")
    return f"{own}= is an argument of {_ELSEWHERE[own]}" if own else ""


def _near(name: str, value: Any, names: Collection[str]) -> str:
    """What a name was meant for that looks misspelt, also one of another library; empty if it is like none."""
    import difflib

    # There are so many names of other libraries that a less close one is mostly of something else. And one of an
    # argument that the function lacks says nothing: `order` is not `border`.
    others = [one for one, rows in _SYNONYMS.items() if any(not own or own in names for own, _ in rows)]
    for near in difflib.get_close_matches(name, [*names, *others, *_ELSEWHERE], 1, CLOSE):
        return f"did you mean {near!r}?" if near in names else _of_parwise(near, value, names)
    for near in difflib.get_close_matches(name, names, 1):
        return f"did you mean {near!r}?"
    return ""


def takes(func: Any, name: str) -> bool:
    """True if a function has a parameter of that name, which can be given by name."""
    try:
        parameter = inspect.signature(func).parameters.get(name)
    except (TypeError, ValueError):  # no function, or one made in C
        return False
    return parameter is not None and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)


def parameters_of(door: Callable[..., Any]) -> list[str]:
    """Names of the keyword arguments of a function of parwise."""
    parameters = inspect.signature(door).parameters.values()
    return [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


def _value(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= MOST_CHARACTERS and "array of shape" not in text and not text.startswith("<") else "..."
