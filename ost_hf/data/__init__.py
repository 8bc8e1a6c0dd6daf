"""Rows to model inputs: loading, stable ids, chat templates, label masks, padding, anchors."""
