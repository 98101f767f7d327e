"""What the pictures have in common, as Python and as files."""
