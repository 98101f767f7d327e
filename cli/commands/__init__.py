"""The commands, one module each, by its name: click only."""
