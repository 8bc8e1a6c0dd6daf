"""The one distributed, resumable loop that runs a scorer over a pool and writes the score table."""
