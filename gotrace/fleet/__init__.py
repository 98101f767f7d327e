"""Many hosts in one folder: what was measured, as Parquet that any engine reads, and what can be said of all of it."""
