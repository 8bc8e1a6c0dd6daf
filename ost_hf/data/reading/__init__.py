"""Files, names and lists of records, to a ``datasets.Dataset``."""
