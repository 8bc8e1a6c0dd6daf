"""One run: its configuration, its stages, the checks before them, the launcher."""
