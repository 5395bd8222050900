"""Maps over the nodes of a DataTree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Unpack

import xarray as xr

from .._core.options.options import resolve
from .._core.results import tuple_of
from .labels import listed
from .map import OnMissingDim, map_node, needed_dims
from .request import How, Request, check_no_out, make_request, show_how


class DataTreeMaps:
    """Maps over the Datasets of all nodes of a DataTree, as ``tree.par``.

    Parameters
    ----------
    tree : DataTree
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    @show_how
    def map(
        self,
        func: Callable[..., Any],
        dim: Hashable | tuple[Hashable, ...],
        *others: Any,
        on_missing_dim: OnMissingDim = "copy",
        core_dims: Hashable | tuple[Hashable, ...] | None = None,
        **how: Unpack[How],
    ) -> Any:
        """Map a function over each variable that has all mapped dimensions, in all nodes.

        Parameters
        ----------
        func, dim, on_missing_dim, core_dims
            As for `DatasetMaps.map`.
        *others : DataArray, Dataset or DataTree
            Further arrays, mapped in step. A DataTree stands for its node at the
            same path.
        **how
            Further arguments and options; see `parwise.xarray.How`.

        Returns
        -------
        DataTree or tuple of DataTree
            A tuple if `func` returns tuples.

        Raises
        ------
        TypeError, ValueError, Exception
            As `DatasetMaps.map`.

        Examples
        --------
        >>> import numpy as np
        >>> import xarray as xr
        >>> import parwise.xarray
        >>> ds = xr.Dataset({"a": (("x", "y"), np.eye(3))})
        >>> tree = xr.DataTree.from_dict({"/": ds, "/more": 2 * ds})
        >>> tree.par.map(np.sum, "x")["more/a"].to_numpy()
        array([2., 2., 2.])
        """
        return map_tree(self._tree, others, make_request(func, dim, **how), on_missing_dim, core_dims)


def map_tree(
    tree: xr.DataTree, others: Sequence[Any], request: Request, on_missing_dim: OnMissingDim, core_dims: Any = None
) -> Any:
    """Map over the datasets of all nodes of a tree."""
    check_no_out(request, "a DataTree")
    needed = needed_dims(request, core_dims)
    dims = {dim for node in tree.subtree for dim in node.dims}
    for dim in needed:
        if dim not in dims:
            raise ValueError(f"no node of the tree has a dimension {dim!r}; there are {listed(sorted(dims, key=str))}")

    results: list[Any] = []
    mapped: list[bool] = []

    def map_one(view: xr.Dataset, *other_nodes: Any) -> None:
        dataset = xr.Dataset(view.data_vars, view.coords, view.attrs)
        dataset.encoding = view.encoding
        mapped.append(any(set(needed) <= set(one.dims) for one in dataset.data_vars.values()))
        results.append(map_node(dataset, other_nodes, request, on_missing_dim, needed))

    def as_tree(column: Iterable[xr.Dataset]) -> xr.DataTree:
        nodes = iter(column)
        return xr.map_over_datasets(lambda *_: next(nodes), tree, *others)

    xr.map_over_datasets(map_one, tree, *others)
    like = next((one for one in results if isinstance(one, tuple)), None)
    if like is None:
        return as_tree(results)
    rows = _rows(results, mapped, len(like), resolve(request.options).ignore)
    return tuple_of(type(like), [as_tree(column) for column in zip(*rows, strict=True)])


def _rows(results: list[Any], mapped: list[bool], count: int, ignore: bool) -> list[tuple[Any, ...]]:
    """Results of nodes, `count` of each.

    A node in which nothing is mapped has one result, a copy, and one of gaps may have: each tree gets it.
    """
    rows = [
        one if isinstance(one, tuple) else (one,) * (1 if is_mapped and not ignore else count)
        for one, is_mapped in zip(results, mapped, strict=True)
    ]
    if (counts := {len(row) for row in rows}) != {count}:
        raise ValueError(
            f"func returns different numbers of results for different nodes: {counts}; return as many for all, or map "
            "the nodes one by one"
        )
    return rows
