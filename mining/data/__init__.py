"""Corpus, queries and records of a mining run."""
