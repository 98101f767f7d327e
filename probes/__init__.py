"""One module per probe; its C text is the file of the same stem in `gotrace.ebpf`. Imports nothing by itself."""
