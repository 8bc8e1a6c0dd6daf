"""The small model that is asked: base + LoRA, warmed up, with its optimizer state."""
