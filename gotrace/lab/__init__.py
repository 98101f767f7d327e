"""Experiments with a whole service: load, repeated runs, comparisons, and what is required of them."""
