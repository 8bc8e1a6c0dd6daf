"""May these numbers be trusted, and what will they cost: measured on a few rows before a pool is scored."""
