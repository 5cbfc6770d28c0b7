"""Search for candidates: exact, FAISS or BM25."""
