"""What a go command, or any other, had done by the processes it started: for which package, and what was cached."""
