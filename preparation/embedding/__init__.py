"""Embed corpora that are too large for one process, or for memory."""
