"""Curated datasets on the Hub: kept rows with their utilities, the score table, a dataset card."""
