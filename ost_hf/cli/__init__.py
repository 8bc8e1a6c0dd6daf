"""The command line: one YAML, eight commands, every field a flag."""
