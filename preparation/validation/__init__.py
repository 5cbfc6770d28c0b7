"""Validate a training file and report on it."""
