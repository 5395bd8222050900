"""How fast parwise is: over time with asv, and beside its peers.

``asv run`` times the cases of `benchmarks.suite` at each commit;
``python -m benchmarks.compare`` sets parwise beside other libraries.
"""
