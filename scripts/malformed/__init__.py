"""Rows and files as people really have them, broken in every way that was met, made from a seed."""
