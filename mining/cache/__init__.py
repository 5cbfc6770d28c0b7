"""Vectors cached on disk by the content they were computed from."""
