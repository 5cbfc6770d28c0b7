"""Embedders and rerankers together with their caches."""

from dataclasses import replace
from pathlib import Path

from common.prompts import with_prompt
from encoders import Embedder
from encoders.backbone import Encoder, bf16_is_fast
from mining.cache.model_digest import model_digest
from mining.cache.text_digest import combined
from mining.cache.vectors import VectorCache
from mining.data.corpus import Corpus
from mining.data.queries import Queries
from mining.scoring.teacher import Teacher
from mining.search.encode import Encoding, Read, Vectors, encode_all


class EmbedderWithCache:
    """An embedder with its cache of vectors.

    Args:
        embedder: The model, whose prompts are used; a query may have one of its own.
        cache_dir: Where caches are.
        how: How texts are encoded.
    """

    def __init__(self, embedder: Embedder, cache_dir: Path, how: Encoding) -> None:
        self.embedder = embedder
        self.digest = model_digest(embedder)
        self.cache_dir = cache_dir / "vectors"
        self.how = how

    def documents(self, corpus: Corpus, max_length: int | None) -> Vectors:
        """Encode all documents; collective: all processes of a run call it."""
        prompt = self.embedder.find_prompt("document")

        def read(start: int, stop: int) -> list[str]:
            return [with_prompt(text, prompt) for text in corpus.slice(start, stop)]

        return self._encode(len(corpus), read, max_length, "documents")

    def queries(self, queries: Queries, max_length: int | None) -> Vectors:
        """Encode all queries; collective: all processes of a run call it."""
        prompt = self.embedder.find_prompt("query")

        def read(start: int, stop: int) -> list[str]:
            return queries.prompted(start, stop, prompt)

        return self._encode(len(queries), read, max_length, "queries")

    def _encode(self, count: int, read: Read, max_length: int | None, what: str) -> Vectors:
        how = replace(self.how, max_length=max_length)
        folder = self.cache_dir / cache_key(self.embedder, self.digest, how)
        with VectorCache(folder, self.embedder.dimension) as cache:
            return encode_all(self.embedder, count, read, cache, how, what)


def open_teacher(reranker: Encoder, digest: str, cache_dir: Path, how: Encoding) -> Teacher:
    """Open a reranker with its score cache; ``digest`` is the model's."""
    folder = cache_dir / "scores" / cache_key(reranker, digest, how)
    return Teacher(reranker, VectorCache(folder, 1), how)


def cache_key(model: Encoder, digest: str, how: Encoding) -> str:
    """Name a cache's folder by a digest of the model and all else that decides its results.

    Prompts are no part of it: texts come to a cache behind them.
    """
    precise = not (how.bf16 and bf16_is_fast(model.device))
    return combined(
        [digest, str(how.max_length or model.max_length), "fp32" if precise else "bf16"]
    )
