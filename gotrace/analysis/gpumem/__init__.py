"""GPU memory by its allocators' calls: what is live, what is held but free, in what pieces, and why it grew."""
