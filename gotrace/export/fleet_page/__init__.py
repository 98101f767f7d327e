"""Percentile curves of a fleet, with filters: the script and the style of that figure."""
