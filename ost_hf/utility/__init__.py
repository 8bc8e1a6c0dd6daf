"""The mathematics: functions of tensors and modules. No files, no processes, no configurations."""
