"""Compute on real tokens only: packing, attention, dropout and threads for packed sequences."""
