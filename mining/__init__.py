"""Hard negatives: search for candidates, filters, scores of a reranker, and their caches."""
