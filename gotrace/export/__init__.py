"""One module per output format. Imports nothing by itself."""
