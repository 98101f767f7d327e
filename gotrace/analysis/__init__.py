"""Pure functions from events to pauses, phases, histograms and statistics. Imports nothing by itself."""
