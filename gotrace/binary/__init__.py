"""Facts about an executable file: its ELF structure, build information, function table, code and the runtime's layout."""
