"""Split rows into train, validation and test parts without leakage."""
