"""Score table to selection table."""
