"""The rules; see `gotrace.advice`."""
