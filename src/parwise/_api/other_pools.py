"""Methods that other pools have and `parwise.Pool` lacks: what to write in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_UNORDERED = "pool.imap(f, items, ordered=False)"
_FUTURE = "pool.submit(f, *args, **kwargs), which returns a future: .result() waits, .add_done_callback(g) calls back"
_LATER = "pool.map(f, items), which begins all calls at once and returns an iterator"
_STARMAP = "parwise.parallel_map(f, items, starmap=True, executor=pool), or pool.map(f, *zip(*items))"
_SHUTDOWN = "pool.shutdown(), or `with parwise.Pool() as pool:`"
_KILL = "pool.shutdown(cancel_futures=True); an exception that leaves `with parwise.Pool() as pool:` cancels too"

#: Of multiprocessing, its clones (billiard, multiprocess, pathos), mpire, Dask's client and ipyparallel's views.
_INSTEAD = {
    "apply_async": _FUTURE,
    "apipe": _FUTURE,
    "pipe": "pool.apply(f, args, kwargs)",
    "apply_sync": "pool.apply(f, args, kwargs)",
    "map_async": _LATER,
    "amap": _LATER,
    "map_sync": "parwise.parallel_map(f, items, executor=pool)",
    "starmap": _STARMAP,
    "starmap_async": "pool.map(f, *zip(*items)), which begins all calls at once and returns an iterator",
    "istarmap": "pool.imap(f, items, starmap=True)",
    "imap_unordered": _UNORDERED,
    "uimap": _UNORDERED,
    "map_unordered": _UNORDERED,
    "gather": "[future.result() for future in futures]",
    "scatter": "args=(x,) of parwise.parallel_map: each worker gets it once",
    "close": _SHUTDOWN,
    "join": _SHUTDOWN,
    "stop_and_join": _SHUTDOWN,
    "terminate": _KILL,
    "kill_workers": _KILL,
    "terminate_workers": _KILL,
}


class OtherPools:
    """Says what to write where a method of another library's pool is looked up."""

    if not TYPE_CHECKING:  # type checkers would take every name for a method

        def __getattr__(self, name: str) -> Any:
            instead = _INSTEAD.get(name)
            more = "" if instead is None else f"; write {instead}"
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{more}", name=name, obj=self)
