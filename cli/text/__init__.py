"""What records look like to people, one module per view, by its name: `heading`, `line` and `summary`."""
