"""Look at a running Go program from outside. Imports nothing by itself: a tracer that is slow to start misses things."""

__version__ = "0.2.0"
