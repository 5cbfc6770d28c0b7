"""Decide which documents may become negatives."""
