"""Make, convert, split and validate training data before a run."""
