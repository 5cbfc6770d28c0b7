"""Retrieval and reranking with a model, exact or with FAISS."""
