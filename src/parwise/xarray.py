"""Maps over xarray's objects by the names of their dimensions: ``.par`` on each of them.

Import this module once, and DataArray, Dataset and DataTree have an accessor
``par``:

>>> import numpy as np
>>> import xarray as xr
>>> import parwise.xarray
>>> da = xr.DataArray(np.arange(6.0).reshape(3, 2), {"time": [10, 20, 30]}, ("time", "site"))
>>> da.par.map(np.sum, "time")
<xarray.DataArray (time: 3)> Size: 24B
array([1., 5., 9.])
Coordinates:
  * time     (time) int64 24B 10 20 30
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Unpack

import xarray as xr

from ._core.options import Options
from ._xarray.groupby import map_groups
from ._xarray.map import OnMissingDim, map_array, map_dataset, map_tree
from ._xarray.request import How, make_request
from ._xarray.rolling import map_windows

__all__ = ["DataArrayMaps", "DataTreeMaps", "DatasetMaps", "How"]


class _GroupsAndWindows:
    """What DataArrays and Datasets have alike."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole

    def map_groups(self, func: Callable[..., Any], group: Any, **how: Unpack[How]) -> Any:
        """Map a function over groups: ``array.groupby(group).map(func)``.

        Parameters
        ----------
        func : callable
            Gets a DataArray (or a Dataset), with `args` and `kwargs`, and
            returns one.
        group : str, DataArray, dict or groupby
            As xarray's `groupby` takes it: a coordinate, "time.month", an
            array of labels, a dict of groupers; or what that, `groupby_bins` or
            `resample` made of this object.
        **how
            `args`, `kwargs`, `rng`, and options; see `parwise.xarray.How`. With
            ``errors="ignore"`` NaN stands in place of a group's result.

        Returns
        -------
        DataArray or Dataset
            What the loop gives: xarray makes the groups and puts the results
            together. Lazy if the data is in Dask's blocks, which needs
            `output_dtypes` (and `output_core_dims`): dicts, if `func` gives a
            Dataset of other variables than it got.

        Raises
        ------
        Exception
            What `func` raised for the first group, with a note that names it.

        Examples
        --------
        >>> import numpy as np
        >>> import xarray as xr
        >>> import parwise.xarray
        >>> da = xr.DataArray([1.0, 2.0, 4.0], {"part": ("x", ["a", "b", "a"])}, "x")
        >>> da.par.map_groups(lambda one: one - one.mean(), "part").to_numpy()
        array([-1.5,  0. ,  1.5])
        >>> da.to_dataset(name="a").par.map_groups(lambda one: one.mean(), "part")["a"].to_numpy()
        array([2.5, 2. ])
        """
        return map_groups(self._whole, group, make_request(func, "group", **how))

    def map_windows(
        self,
        func: Callable[..., Any],
        windows: Mapping[Any, int] | None = None,
        *,
        dim: Hashable | tuple[Hashable, ...] | None = None,
        min_periods: int | None = None,
        center: bool | Mapping[Any, bool] = False,
        fill_value: Any = ...,
        **more: Any,
    ) -> Any:
        """Map a function over rolling windows; of a Dataset those of each variable that has the dimensions.

        Parameters
        ----------
        func : callable
            Gets a window: the slice at each label of
            ``array.rolling(time=30).construct("window")``, with that dimension
            last.
        windows : dict, optional
            The length of the window along each dimension; or by keyword,
            ``time=30``.
        dim : hashable or tuple of hashable, optional
            Dimensions that are mapped over, too: ``dim=("lat", "lon")`` gives
            `func` the windows of single pixels.
        min_periods : int, optional
            NaN where a window has fewer values than these (the fewest, along
            dimensions that results do not have). None: every result counts.
        center : bool, optional
            Whether labels are at the middle of windows.
        fill_value : optional
            What stands beyond the array; NaN by default.
        **more
            Windows by keyword, and what `parwise.xarray.How` has.

        Returns
        -------
        DataArray or Dataset, or tuple of such
            As from `map`. Of files only blocks are read, each with its windows'
            neighbours.

        Examples
        --------
        >>> import numpy as np
        >>> import xarray as xr
        >>> import parwise.xarray
        >>> da = xr.DataArray([1.0, 5.0, 3.0, 2.0], dims="time")
        >>> da.par.map_windows(np.median, time=3).to_numpy()
        array([nan, nan,  3.,  3.])
        >>> da.par.map_windows(np.nanmedian, time=3, min_periods=2).to_numpy()
        array([nan,  3.,  3.,  3.])
        >>> da.to_dataset(name="a").par.map_windows(np.max, time=2)["a"].to_numpy()
        array([nan,  5.,  5.,  3.])
        """
        return map_windows(self._whole, func, windows, dim, min_periods, center, fill_value, more)


@xr.register_dataarray_accessor("par")
class DataArrayMaps(_GroupsAndWindows):
    """Maps over a DataArray, as ``array.par``.

    Parameters
    ----------
    array : DataArray
    """

    def map(
        self,
        func: Callable[..., Any],
        dim: Hashable | tuple[Hashable, ...],
        *others: xr.DataArray,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        vectorized: bool = False,
        chunk: int | None = None,
        depth: int = 0,
        boundary: Any = None,
        rng: Any = None,
        output_core_dims: Any = None,
        output_dtypes: Any = None,
        output_sizes: Mapping[Hashable, int] | None = None,
        keep_attrs: bool | str = True,
        as_xarray: bool = False,
        **options: Unpack[Options],
    ) -> Any:
        """Map a function over one or more dimensions, on all cores.

        Parameters
        ----------
        func : callable
            Gets plain arrays: the slice at each label of `dim`, those of
            `others`, then `args` and `kwargs`. With `vectorized`, blocks.
        dim : hashable or tuple of hashable
            What is mapped over: ``("lat", "lon")`` calls `func` once per pixel,
            with a series.
        *others : DataArray
            Mapped in step along the same dimensions, where their coordinates
            must be the same. Their other dimensions may be any.
        args, kwargs, vectorized, chunk, depth, boundary, rng : optional
            As `parwise.parallel_apply` has them.
        output_core_dims : list of hashable, or list of lists, optional
            The dimensions of one result, if these are not the slice's; a list
            for each, if `func` gives a tuple.
        output_dtypes : dtype or list of dtype, optional
            Of each result. Needed for data in Dask's blocks.
        output_sizes : dict, optional
            Lengths of new dimensions. Needed for data in Dask's blocks.
        keep_attrs : bool or str, optional
            As xarray has it: "override", "drop", "identical", ...
        as_xarray : bool, optional
            Hand `func` DataArrays, as ``array.isel({dim: i})`` gives them, and
            take DataArrays back, which are put together by `xarray.concat`.
        **options
            How the call runs; see `parwise.Options`.

        Returns
        -------
        DataArray or tuple of DataArray
            Dimensions that the array has are in its order, and new ones follow.
            Coordinates that still fit, the name and the attributes are kept;
            so is the encoding if dtype and shape are the array's, and else what
            of it does not depend on them. Data in Dask's blocks, or files that
            are opened without, stays there: results of the first are as lazy,
            of the second blocks are read as they are needed.

        Raises
        ------
        TypeError, ValueError
            For a wrong argument, before any work.
        Exception
            What `func` raised for the first element, with a note of its labels.

        Examples
        --------
        >>> import numpy as np
        >>> import xarray as xr
        >>> import parwise.xarray
        >>> lat = xr.DataArray([10, 20], dims="lat", name="lat")
        >>> cube = xr.DataArray(np.arange(12.0).reshape(3, 2, 2), {"lat": lat}, ("time", "lat", "lon"))
        >>> cube.par.map(np.ptp, ("lat", "lon")).sizes
        Frozen({'lat': 2, 'lon': 2})
        >>> low, high = cube.par.map(lambda a: (a.min(), a.max()), "lat")
        >>> high.to_series().to_dict()
        {10: 9.0, 20: 11.0}
        >>> cube.par.map(np.quantile, ("lat", "lon"), args=([0.1, 0.5],), output_core_dims=["q"]).dims
        ('lat', 'lon', 'q')
        """
        return map_array(
            self._whole,
            others,
            make_request(
                func,
                dim,
                args=args,
                kwargs=kwargs,
                vectorized=vectorized,
                chunk=chunk,
                depth=depth,
                boundary=boundary,
                rng=rng,
                output_core_dims=output_core_dims,
                output_dtypes=output_dtypes,
                output_sizes=output_sizes,
                keep_attrs=keep_attrs,
                as_xarray=as_xarray,
                **options,
            ),
        )


@xr.register_dataset_accessor("par")
class DatasetMaps(_GroupsAndWindows):
    """Maps over the variables of a Dataset, as ``dataset.par``.

    Parameters
    ----------
    dataset : Dataset
    """

    def map(
        self,
        func: Callable[..., Any],
        dim: Hashable | tuple[Hashable, ...],
        *others: xr.DataArray | xr.Dataset,
        on_missing_dim: OnMissingDim = "copy",
        **how: Unpack[How],
    ) -> Any:
        """Map a function over each variable that has all of the dimensions.

        Parameters
        ----------
        func, dim : callable, and hashable or tuple of hashable
            As for a DataArray.
        *others : DataArray or Dataset
            Mapped in step; of a Dataset the variable of the same name.
        on_missing_dim : {"copy", "drop", "raise"}, optional
            What becomes of variables that lack one of the dimensions.
        **how
            See `parwise.xarray.How`.

        Returns
        -------
        Dataset or tuple of Dataset

        Examples
        --------
        >>> import numpy as np
        >>> import xarray as xr
        >>> import parwise.xarray
        >>> ds = xr.Dataset({"a": (("x", "y"), np.eye(3)), "b": ("y", [1, 2, 3])})
        >>> ds.par.map(np.sum, "x")["a"].to_numpy()
        array([1., 1., 1.])
        >>> list(ds.par.map(np.sum, "x", on_missing_dim="drop"))
        ['a']
        """
        return map_dataset(self._whole, others, make_request(func, dim, **how), on_missing_dim)


class DataTreeMaps:
    """Maps over the datasets of all nodes of a DataTree, as ``tree.par``.

    Parameters
    ----------
    tree : DataTree
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree

    def map(
        self,
        func: Callable[..., Any],
        dim: Hashable | tuple[Hashable, ...],
        *others: Any,
        on_missing_dim: OnMissingDim = "copy",
        **how: Unpack[How],
    ) -> Any:
        """Map a function over each variable of each node that has all of the dimensions.

        Parameters
        ----------
        func, dim, on_missing_dim, **how
            As for a Dataset.
        *others : DataArray, Dataset or DataTree
            Mapped in step; of a DataTree the node of the same path.

        Returns
        -------
        DataTree or tuple of DataTree

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
        return map_tree(self._tree, others, make_request(func, dim, **how), on_missing_dim)


if hasattr(xr, "register_datatree_accessor"):  # xarray 2024.10
    xr.register_datatree_accessor("par")(DataTreeMaps)
