"""The topology of GPUs, NICs and NUMA nodes: read from what tools print, and judged as NCCL would use it."""
