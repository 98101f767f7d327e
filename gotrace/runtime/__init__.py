"""The Go runtime's own books and names, read from outside."""
