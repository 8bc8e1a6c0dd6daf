"""LESS: influence along the checkpoints of a warm-up."""
