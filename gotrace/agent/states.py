"""What may become of a process that an agent has found: words that are counted by, beside those of a selection."""

TRACED, WAITS, EXPENSIVE, FAILED = "traced", "waits to be traced", "too expensive", "failed"
