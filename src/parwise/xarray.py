"""Maps over DataArrays, Datasets and DataTrees, by names of dimensions.

Importing this module registers the accessor ``par`` of these three classes:

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

from ._core.options.keywords import show_keywords
from ._core.options.options import Options
from ._xarray.groupby import map_groups
from ._xarray.map import OnMissingDim, map_array, map_dataset
from ._xarray.request import How, make_request, show_how, show_how_and_more
from ._xarray.rolling import map_windows
from ._xarray.tree import DataTreeMaps

__all__ = ["DataArrayMaps", "DataTreeMaps", "DatasetMaps", "How"]


class _GroupAndWindowMaps:
    """The methods that DataArrays and Datasets share.

    Parameters
    ----------
    obj : DataArray or Dataset
    """

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    @show_how
    def map_groups(self, func: Callable[..., Any], group: Any, **how: Unpack[How]) -> Any:
        """Map a function over groups, as ``array.groupby(group).map(func)`` does.

        Parameters
        ----------
        func : callable
            Function of one group, then `args` and `kwargs`. It takes and returns
            a DataArray (of a Dataset: a Dataset).
        group : str, DataArray, dict or groupby
            An argument of xarray's `groupby`: the name of a coordinate,
            "time.month", an array of labels, or a dict of groupers. Or the
            object that `groupby`, `groupby_bins` or `resample` of this very data
            returned. A group is not cut, and its result stays as it is:
            `vectorized`, `chunk`, `depth`, `boundary` and `keep_attrs` are refused.
        **how
            Further arguments and options; see `parwise.xarray.How`.

        Returns
        -------
        DataArray or Dataset
            The result of xarray's own loop: xarray makes the groups and
            combines the results. With ``errors="ignore"`` the result of a group
            that failed is NaN. For Dask arrays it is lazy, and
            `output_dtypes` is required; so is `output_core_dims`, if results
            have different dimensions than groups; names, attributes and
            coordinates are the groups'. If `func` returns a Dataset with
            different variables than it got, both are dicts.

        Raises
        ------
        TypeError, ValueError
            For an invalid argument, before any computation.
        KeyError
            If the object has no coordinate named `group`.
        Exception
            The exception that `func` raised for the first group that failed,
            with a note that names the group.

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
        return map_groups(self._obj, group, make_request(func, "group", **how))

    @show_how_and_more
    def map_windows(
        self,
        func: Callable[..., Any],
        /,
        windows: Mapping[Any, int] | None = None,
        *,
        dim: Hashable | tuple[Hashable, ...] | None = None,
        min_periods: int | None = None,
        center: bool | Mapping[Any, bool] = False,
        fill_value: Any = ...,
        stride: int | Mapping[Any, int] = 1,
        **more: Any,
    ) -> Any:
        """Map a function over rolling windows. For a Dataset, over those of each variable that has the dimensions.

        Parameters
        ----------
        func : callable
            Function of one window, then `args` and `kwargs`. The window is the
            slice at one label of
            ``array.rolling(time=30).construct("window")``, with the new
            dimension last.
        windows : dict, optional
            Length of the window along each dimension, in labels. Also by
            keyword: ``time=30``. A dimension with the name of an argument needs
            the dict: ``{"depth": 3}``.
        dim : hashable or tuple of hashable, optional
            Further mapped dimensions: with ``dim=("lat", "lon")`` a window is
            that of a single pixel.
        min_periods : int, optional
            Minimum number of values in a window that are not NaN; the result of
            a window with fewer is NaN. If a result covers several windows, all
            of them need as many. None, the default: all results are kept.
        center : bool or dict of bool, optional
            True to put labels at the center of windows. By default they are at
            the right edge.
        fill_value : optional
            Value beyond the edges of the array; by default NaN.
        stride : int or dict of int, optional
            Distance of windows, in labels: with 5 the result has every fifth
            label, as from ``rolling.construct("window", stride=5)``.
        **more
            Windows by keyword, and what follows.

        Returns
        -------
        DataArray or Dataset, or tuple of such
            As from `map`. Files are read block by block, with the neighbours
            that windows need.

        Raises
        ------
        TypeError, ValueError
            For an invalid argument, before any computation.
        KeyError
            If the object lacks a dimension to roll along.
        Exception
            The exception that `func` raised for the first window that failed,
            with a note of its labels.

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
        >>> da.par.map_windows(np.nanmedian, time=3, stride=2).to_numpy()
        array([1., 3.])
        >>> da.to_dataset(name="a").par.map_windows(np.max, time=2)["a"].to_numpy()
        array([nan,  5.,  5.,  3.])
        """
        return map_windows(self._obj, func, windows, dim, min_periods, center, fill_value, stride, more)


@xr.register_dataarray_accessor("par")
class DataArrayMaps(_GroupAndWindowMaps):
    """Maps over a DataArray, as ``array.par``.

    Parameters
    ----------
    array : DataArray
    """

    @show_keywords(Options)
    def map(
        self,
        func: Callable[..., Any],
        dim: Hashable | tuple[Hashable, ...],
        *others: xr.DataArray,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        vectorized: bool = False,
        chunk: int | tuple[int | None, ...] | Mapping[Hashable, int] | None = None,
        depth: int | tuple[int, ...] | Mapping[Hashable, int] = 0,
        boundary: Any = None,
        out: Any = None,
        rng: Any = None,
        output_core_dims: Any = None,
        output_dtypes: Any = None,
        output_sizes: Mapping[Hashable, int] | None = None,
        keep_attrs: bool | str = True,
        as_xarray: bool = False,
        **options: Unpack[Options],
    ) -> xr.DataArray | Any:
        """Map a function over one or more dimensions, on all CPU cores.

        Parameters
        ----------
        func : callable
            Function of one element: a NumPy array with the slice at one label
            of `dim`, the slices of `others`, then `args` and `kwargs`. With
            `vectorized`, a function of blocks of such slices.
        dim : hashable or tuple of hashable
            The dimensions to loop over, which slices do not have: with
            ``("lat", "lon")`` `func` is called once per pixel, with the
            pixel's time series. (``array.mean("time")`` names the opposite: the
            dimension that is consumed.)
        *others : DataArray
            Further arrays, mapped in step. Their coordinates along `dim` must
            be equal to those of the array; all other dimensions are free. One
            that lacks mapped dimensions is broadcast along them, as in
            arithmetic of xarray; it must not have dimensions, or coordinates,
            that the array lacks.
        args, kwargs, vectorized, chunk, depth, boundary, rng : optional
            As in `parwise.parallel_apply`; `chunk`, `depth` and `boundary` may
            be dicts by dimension.
        out : array or path, optional
            Where the result is kept, if `func` returns one array or scalar: an
            array of NumPy (`numpy.memmap`), zarr or h5py with the dimensions of
            the result in its order; or the path of a new zarr store, which
            `xarray.open_zarr` reads as the result. The path needs
            `output_dtypes` and, if slices have dimensions,
            `output_core_dims`. Not for Dask arrays. With ``resume=`` a run that
            was killed goes on.
        output_core_dims : list of hashable, or list of lists, optional
            Dimensions of one result of `func`, in order. None, the default:
            results are scalars, or have the slice's dimensions. If `func`
            returns a tuple, a list for each of its items.
        output_dtypes : dtype or list of dtype, optional
            Dtype of each result, to which it is cast by "same_kind". Required
            for Dask arrays. Text that would be cut is an error, and so are
            integers and dates out of range. With ``object`` results stay the
            objects that they are.
        output_sizes : dict, optional
            Lengths of new dimensions. Required for Dask arrays.
        keep_attrs : bool or str, optional
            As in `xarray.apply_ufunc`: "override" (or True, the default),
            "drop" (or False), "identical", "no_conflicts" or "drop_conflicts".
        as_xarray : bool, optional
            True to call `func` with DataArrays, the slices
            ``array.isel({dim: i})``. It must return DataArrays, which
            are combined as by `xarray.concat`. Of Dask arrays only their
            data counts: the lazy result has the array's labels.
        **options
            How the call runs; see `parwise.Options`.

        Returns
        -------
        DataArray or tuple of DataArray
            Dimensions of the array are in its order, and new ones follow. The
            name, the attributes and all coordinates that still fit are kept.
            As with `xarray.apply_ufunc`, coordinates of `others` along `dim` are
            added, and one whose values differ between arrays is left out.
            Only the compression is kept of the encoding, since a packing may
            not fit other values.
            Results of Dask arrays are lazy. Files that were opened without
            Dask are read block by block. With `out` the data is that of `out`,
            read from a file when it is used.

        Raises
        ------
        TypeError, ValueError
            For an invalid argument, before any computation.
        FileExistsError
            If `out` is the path of a store that this run has not created.
        Exception
            The exception that `func` raised for the first element that failed,
            with a note of its labels.

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
        >>> weights = xr.DataArray([0.25, 0.75], {"lat": lat}, ("lat",))
        >>> cube.par.map(lambda a, w: w @ a.mean(axis=1), "time", weights).to_numpy()
        array([ 2.,  6., 10.])
        >>> out = np.empty((2, 2))
        >>> low = cube.par.map(np.min, ("lat", "lon"), out=out)
        >>> low.dims, np.shares_memory(low, out)
        (('lat', 'lon'), True)
        """
        request = make_request(
            func, dim, args=args, kwargs=kwargs, vectorized=vectorized, chunk=chunk, depth=depth, boundary=boundary,
            out=out, rng=rng, output_core_dims=output_core_dims, output_dtypes=output_dtypes,
            output_sizes=output_sizes, keep_attrs=keep_attrs, as_xarray=as_xarray, **options,
        )  # fmt: skip
        return map_array(self._obj, others, request)


@xr.register_dataset_accessor("par")
class DatasetMaps(_GroupAndWindowMaps):
    """Maps over the variables of a Dataset, as ``dataset.par``.

    Parameters
    ----------
    dataset : Dataset
    """

    @show_how
    def map(
        self,
        func: Callable[..., Any],
        dim: Hashable | tuple[Hashable, ...],
        *others: xr.DataArray | xr.Dataset,
        on_missing_dim: OnMissingDim = "copy",
        core_dims: Hashable | tuple[Hashable, ...] | None = None,
        **how: Unpack[How],
    ) -> Any:
        """Map a function over each variable that has all mapped dimensions.

        Parameters
        ----------
        func : callable
            Function of one element, as for `DataArrayMaps.map`.
        dim : hashable or tuple of hashable
            The mapped dimensions.
        *others : DataArray or Dataset
            Further arrays, mapped in step. A Dataset stands for its variable of
            the same name.
        on_missing_dim : {"copy", "drop", "raise"}, optional
            Treatment of variables that lack a mapped dimension: copied to the
            result (the default), left out, or an error.
        core_dims : hashable or tuple of hashable, optional
            Dimensions that slices must have; a variable that lacks one is
            treated as one that lacks a mapped dimension. With
            ``map(f, ("lat", "lon"), core_dims="time")`` a mask of
            ``("lat", "lon")`` is copied, while `f` gets time series.
        **how
            Further arguments and options; see `parwise.xarray.How`.

        Returns
        -------
        Dataset or tuple of Dataset
            A tuple if `func` returns tuples.

        Raises
        ------
        TypeError, ValueError
            For an invalid argument, before any computation.
        Exception
            The exception that `func` raised for the first element that failed,
            with notes of its labels and of the variable.

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
        >>> ds.par.map(np.sum, "y", core_dims="x")["b"].to_numpy()  # copied
        array([1, 2, 3])
        """
        return map_dataset(self._obj, others, make_request(func, dim, **how), on_missing_dim, core_dims)


if hasattr(xr, "register_datatree_accessor"):  # since xarray 2024.10
    xr.register_datatree_accessor("par")(DataTreeMaps)
