"""Serve an embedder and a reranker over HTTP: engine, routes, limits, playground page."""
