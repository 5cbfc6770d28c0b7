"""A corpus, embedded once at start-up and searched exactly."""

from collections.abc import Mapping

import numpy as np

from common.similarity import Similarity
from encoders import Embedder
from serving.engine.similarity import for_dot_product

# Shapes: D documents, H dimensions of an embedding.


class Corpus:
    """Documents and their embeddings.

    Args:
        documents: Texts by id.
        vectors: [D, H].
        similarity: The embedder's.
    """

    def __init__(
        self, documents: Mapping[str, str], vectors: np.ndarray, similarity: Similarity
    ) -> None:
        self.ids = list(documents)
        self.texts = list(documents.values())
        self.vectors = for_dot_product(vectors, similarity)
        self.similarity = similarity

    @classmethod
    def embed(cls, documents: Mapping[str, str], embedder: Embedder, bf16: bool) -> "Corpus":
        """Embed documents with the embedder's prompt for them."""
        vectors = embedder.encode(
            list(documents.values()), prompt_name="document", bf16=bf16, show_progress=True
        )
        return cls(documents, vectors.numpy(), embedder.similarity)

    def nearest(self, query: np.ndarray, count: int) -> tuple[list[int], np.ndarray]:
        """Numbers and similarities of the documents most similar to a query [H], best first."""
        scores = self.vectors @ for_dot_product(query[None], self.similarity)[0]  # [D]
        count = min(count, len(scores))
        chosen = np.argpartition(-scores, count - 1)[:count]
        chosen = chosen[np.lexsort((chosen, -scores[chosen]))]
        return chosen.tolist(), scores[chosen]
