"""Metrics of rankings and of scored pairs, and paired comparisons of two models."""
