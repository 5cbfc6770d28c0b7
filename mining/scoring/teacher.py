"""A reranker whose pair scores are cached on disk."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.prompts import with_prompt
from encoders.backbone import Encoder
from mining.cache.text_digest import pair_keys
from mining.cache.vectors import VectorCache
from mining.search.encode import Encoding

# Letters: P pairs.

Pair = tuple[str, str]


class Teacher:
    """Scorer of (query, document) pairs, texts behind their prompts (see ``pair``).

    Args:
        reranker: The model.
        cache: For this model and these settings, with a width of 1.
        how: The settings.
    """

    def __init__(self, reranker: Encoder, cache: VectorCache, how: Encoding) -> None:
        self.reranker = reranker
        self.cache = cache
        self.how = how

    def pair(self, query: str, prompt: str | None, document: str) -> Pair:
        """Build the reranker's input: the query behind its own prompt, or else the model's."""
        return (
            with_prompt(query, self.reranker.find_prompt("query"), prompt),
            with_prompt(document, self.reranker.find_prompt("document")),
        )

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Return the raw scores of distinct pairs [P], computing and caching missing ones.

        Raises:
            ValueError: A score is not finite.
        """
        keys = pair_keys(pairs)
        places = self.cache.find(keys)
        known, missing = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        scores = np.empty(len(pairs), dtype=np.float32)
        scores[known] = self.cache.take(places[known])[:, 0]
        if len(missing):
            scores[missing] = self._compute([pairs[int(at)] for at in missing])
            self.cache.append(keys[missing], scores[missing, None])
        return scores

    def _compute(self, pairs: list[Pair]) -> NDArray[np.float32]:
        found = self.reranker.score_pairs(
            [query for query, _ in pairs],
            [document for _, document in pairs],
            prompts={},  # they are part of the cache's key, and there already
            max_length=self.how.max_length,
            tokens_per_batch=self.how.tokens_per_batch,
            bf16=self.how.bf16,
        )
        wrong = (~found.isfinite()).nonzero()[:, 0]
        if len(wrong):
            query, document = pairs[int(wrong[0])]
            raise ValueError(
                f"the reranker's scores of {len(wrong)} pairs are NaN or infinite (the first: "
                f"{query[:40]!r}, {document[:40]!r}): it has diverged"
            )
        scores: NDArray[np.float32] = found.numpy()
        return scores


def sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map raw scores to the scale from 0 to 1."""
    return (1 / (1 + np.exp(-scores.astype(np.float64)))).astype(np.float32)
