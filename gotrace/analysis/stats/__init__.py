"""Statistics of runs: is one version better, worse, the same, or can these runs not tell? Imports nothing by itself.

The unit is the run. Requests and pauses of one process share its luck (memory layout, neighbours, time of day), so a
test over single requests finds a difference between two sets of runs of one and the same program more often than not.
Every function here takes one value for each run; only `percentiles`, `bootstrap`, `warmup` and `trend` look into a run.

Nothing here needs scipy, whose import costs a second and 110 MiB: the null distributions of rank tests are a few lines,
exact with ties too, and needed for exact intervals anyway. The tests compare each function with scipy's.
"""
