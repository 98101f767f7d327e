"""One module per command of `gotrace`, plus main.py that finds them. Imports nothing by itself."""
