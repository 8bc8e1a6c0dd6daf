"""A language model reads each row and rates it."""
