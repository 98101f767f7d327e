"""Running something to its end: targets and commands, the loop that says why it ended, sources, recorder, files."""
