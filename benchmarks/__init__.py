"""How fast parwise is.

`history` has the cases that ``asv run`` times at each commit; `peers` sets parwise
beside other libraries: ``python -m benchmarks.peers.compare``. The other modules are
run in the same way: `labelled`, `observer_cost`, `soak`.
"""
