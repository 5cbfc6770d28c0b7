"""Atomic checkpoints, resuming, and the files of a run's output folder."""
