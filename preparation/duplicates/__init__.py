"""Detect exact and near-duplicate texts."""
