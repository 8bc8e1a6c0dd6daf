"""A conversation to text by a model's own template, and which of its characters are answers."""
