"""Talking to Linux: loading BPF, the ring, perf events, processes. Imports nothing by itself."""
