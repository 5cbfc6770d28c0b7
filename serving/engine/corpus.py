"""Documents that are embedded once, at start-up, and searched."""

from collections.abc import Mapping

import numpy as np

from common.similarity import Similarity
from encoders import Embedder
from serving.routes.vectors import unit_length

# Shapes: D documents, H dimensions of an embedding.


class Corpus:
    """Documents and their embeddings.

    Args:
        documents: Texts by id.
        vectors: [D, H].
        similarity: Of the embedder.
    """

    def __init__(
        self, documents: Mapping[str, str], vectors: np.ndarray, similarity: Similarity
    ) -> None:
        self.ids = list(documents)
        self.texts = list(documents.values())
        self.similarity = similarity
        self.vectors = self._prepare(vectors)

    @classmethod
    def embed(cls, documents: Mapping[str, str], embedder: Embedder, bf16: bool) -> "Corpus":
        """Embed documents with the embedder's prompt for them."""
        vectors = embedder.encode(
            list(documents.values()), prompt_name="document", bf16=bf16, show_progress=True
        )
        return cls(documents, vectors.numpy(), embedder.similarity)

    def nearest(self, query: np.ndarray, count: int) -> tuple[list[int], np.ndarray]:
        """Numbers and similarities of the documents nearest to a query [H], the nearest first."""
        scores = self.vectors @ self._prepare(query[None])[0]  # [D]
        count = min(count, len(scores))
        chosen = np.argpartition(-scores, count - 1)[:count]
        chosen = chosen[np.lexsort((chosen, -scores[chosen]))]
        return chosen.tolist(), scores[chosen]

    def _prepare(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors [N, H] whose dot products are the similarity."""
        return unit_length(vectors) if self.similarity == "cosine" else vectors
