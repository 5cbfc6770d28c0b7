"""Resolve and open a model folder: backbone, tokenizer, limits, templates."""
