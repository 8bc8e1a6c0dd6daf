"""The one-step mathematics: pure functions of tensors and modules, no files, no configurations."""
