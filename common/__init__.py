"""What every package may import: strict recipes, hardware, hashing, names of a run's files."""
