"""The parts of ``scripts/benchmark_scoring.py``."""
