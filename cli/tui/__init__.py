"""What takes the whole terminal. Needs the extra `tui`."""
