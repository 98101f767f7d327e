"""Questions about a process, one module each: a view is fed events, asks the machine, and yields records. Never text."""
