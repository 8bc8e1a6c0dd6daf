"""The parts of ``scripts/benchmark_scoring.py``."""

# Known without what they are made of: a wrong name is found before torch is imported.
PRESET_NAMES = ("tiny_qwen3_vl", "smollm2", "qwen3_06b", "qwen3_vl_2b")
