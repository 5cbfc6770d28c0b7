"""A request to each route that takes one; a test and benchmarks/fuzzing/fuzz.py change them."""

from typing import Any

BODIES: dict[str, Any] = {
    "/embed": {"text": "how to read a csv"},
    "/embed_batch": {"texts": ["感冒发烧", "a"]},
    "/score": {"query": "q", "doc": "d"},
    "/score_batch": {"query": "感冒", "docs": ["多喝水", "d"]},
    "/rerank": {"query": "q", "documents": ["a", "b"], "top_n": 1, "model": "reranker"},
    "/v1/rerank": {"query": "q", "documents": ["a", {"text": "b"}], "model": "reranker"},
    "/v2/rerank": {"query": "q", "documents": ["a", "b"], "model": "reranker"},
    "/v1/embeddings": {"input": ["a", "今天"], "encoding_format": "base64", "model": "embedder"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}},
    "/tokenize": {"inputs": "a b"},
    "/search": {"query": "csv", "documents": ["a", "b"]},
    "/compare": {"query": "q", "documents": ["a", "b"]},
}
