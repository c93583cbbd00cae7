"""One training run of a stage: its steps, its checkpoints and its work directory."""
