"""Serve an embedder and a reranker over HTTP: engine, wire formats, limits, playground page."""
