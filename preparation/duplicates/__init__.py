"""Exact and near-duplicate texts."""
