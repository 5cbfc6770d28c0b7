"""Read MLDR: long documents in many languages."""
