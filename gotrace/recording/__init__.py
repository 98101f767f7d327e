"""The raw event stream on disk, and what else can be read as one."""
