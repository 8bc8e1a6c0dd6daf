"""The command line: one YAML, six commands, every field a flag."""
