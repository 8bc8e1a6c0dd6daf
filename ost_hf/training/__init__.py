"""Fine-tuning on the kept rows: ``OSTConfig``, ``OSTSampler``, ``OSTTrainer``, and the same for TRL."""
