"""What the fine-tuned model can do: greedy generation, answer extraction, exact match."""
