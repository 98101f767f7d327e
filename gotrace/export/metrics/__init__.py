"""Metrics in the formats of those who collect them: one model, and a module for each format. Imports nothing by itself."""
