"""What texts become in a store: a vector each, or by a multi-vector encoder one of each token."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from common.prompts import Side
from encoders.kinds import KINDS, Kind, VectorModel, detect_kind
from encoders.multi_vector import MultiVectorEncoder
from evaluation.search.distributed import InferenceSettings, cut
from evaluation.search.retrieval import embed_texts
from stores.store import Vectors

# Shapes: N texts, H dimensions of a vector, T tokens of a text.


@dataclass(frozen=True)
class TextEmbedder:
    """Embeds texts as a store keeps and compares them; all processes of a run together.

    Args:
        model: The model.
        inference: Settings of inference.
    """

    model: VectorModel
    inference: InferenceSettings

    def documents(self, texts: Sequence[str]) -> Sequence[Vectors]:
        """The vectors of documents: [H] or [T, H] of each."""
        prompt = self.model.find_prompt("document")
        return self._embed(texts, "document", prompt, self.inference.document_max_length)

    def queries(self, texts: Sequence[str]) -> Sequence[Vectors]:
        """The same of queries, which have their prompts."""
        found = self._embed(texts, "query", "", self.inference.query_max_length)
        return [as_query(each, self.model.similarity) for each in found]

    def _embed(
        self, texts: Sequence[str], side: Side, prompt: str, length: int | None
    ) -> Sequence[Vectors]:
        if not isinstance(self.model, MultiVectorEncoder):
            return list(embed_texts(self.model, texts, prompt, self.inference, length).numpy())
        state, found = PartialState(), list[tuple[int, Vectors]]()
        pieces = cut(self.model, list(map(len, texts)), self.inference, length)
        for piece in pieces[state.process_index :: state.num_processes]:
            vectors = self.model.encode(
                [texts[at] for at in piece],
                side=side,
                prompt=prompt,
                max_length=length,
                tokens_per_batch=self.inference.tokens_per_batch,
                bf16=self.inference.bf16,
            )
            found += zip(piece, (each.numpy() for each in vectors), strict=True)
        return [each for _, each in sorted(gather_object(found), key=itemgetter(0))]


def find_vector_kind(name: str) -> Kind:
    """The kind of a saved model whose vectors a store can keep.

    Raises:
        ValueError: It makes none.
    """
    if KINDS[kind := detect_kind(name)].reads_pairs:
        raise ValueError(
            f"model: {name} is of kind {kind}; give an embedder or multi-vector encoder"
        )
    return kind


def as_query(vectors: Vectors, similarity: str) -> Vectors:
    """The vectors of a query [T, H] such that their MaxSim with a document is the similarity."""
    return vectors / np.float32(len(vectors)) if similarity == "meanmaxsim" else vectors
