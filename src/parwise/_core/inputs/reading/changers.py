"""Names of functions and methods that change their arguments, their object or the process, or return views of them."""

from __future__ import annotations

#: Methods that change their object.
MUTATORS = frozenset(
    "add append appendleft clear close difference_update discard extend extendleft fill flush insert "
    "intersection_update itemset move_to_end partition pop popitem popleft put read readline readlines remove resize "
    "reverse rotate seek send set_value setdefault setfield setflags shuffle sort subtract symmetric_difference_update "
    "truncate update write writelines __setitem__ __delitem__ __setattr__ __iadd__ __next__".split()
)
#: Functions that change their first argument, by name.
CHANGERS = frozenset(
    "copyto put place putmask put_along_axis fill_diagonal heappush heappop heapreplace heappushpop heapify insort "
    "insort_left insort_right shuffle setattr delattr next setitem delitem iadd imul isub at".split()
)
#: Of functions with an array for the result among their arguments by place: that place.
OUT_PLACES = {
    "dot": 2, "take": 3, "clip": 3, "compress": 3, "cumsum": 3, "cumprod": 3, "sum": 3, "prod": 3, "mean": 3, "std": 3,
    "var": 3, "max": 2, "min": 2, "amax": 2, "amin": 2, "any": 2, "all": 2, "round": 2, "around": 2, "choose": 2,
    "outer": 2, "trace": 5, "concatenate": 2,
}  # fmt: skip
#: Functions that may return an argument, or a view of it.
VIEWS = frozenset(
    "array asarray asanyarray ascontiguousarray asfortranarray asarray_chkfinite asmatrix atleast_1d atleast_2d "
    "atleast_3d broadcast_arrays broadcast_to diag diagonal expand_dims flip fliplr flipud getfield hsplit imag "
    "lib matrix_transpose moveaxis nan_to_num permute_dims ravel real real_if_close require reshape rollaxis rot90 "
    "sliding_window_view as_strided split array_split dsplit vsplit squeeze swapaxes transpose view unstack".split()
)
#: Functions that change the whole process.
PROCESS_WIDE = frozenset(
    "chdir fchdir umask putenv unsetenv tzset setlocale setrecursionlimit catch_warnings simplefilter filterwarnings "
    "resetwarnings redirect_stdout redirect_stderr setdefaulttimeout threadpool_limits".split()
)
#: Modules whose state is one for all threads, or whose library may be entered by one thread at a time.
STATEFUL_MODULES = ("matplotlib.pyplot", "pylab", "netCDF4", "turtle")
