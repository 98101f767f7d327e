"""Look at a running Go program from outside."""

__version__ = "0.1.0"
