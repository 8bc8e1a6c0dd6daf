"""Exact and near copies: found, reported, and what is done about them."""
