"""Tools for AI clusters."""
