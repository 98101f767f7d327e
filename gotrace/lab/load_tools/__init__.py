"""One module per load tool: what its command line asks for, how it is run, and how its output is read."""
