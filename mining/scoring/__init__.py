"""Cached scores of a reranker for the pairs of a mining run."""
