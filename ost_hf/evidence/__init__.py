"""What numbers say and how surely: p-values, contamination, late losses, rank correlation. Pure functions."""
