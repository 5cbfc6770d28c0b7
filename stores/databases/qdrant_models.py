"""Our documents and vectors as Qdrant's models."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from qdrant_client import models

from common.bm25 import K1, B
from loaders.parsing.fields import show
from stores.databases.qdrant_filters import filterable
from stores.databases.qdrant_ids import point_id, word_id
from stores.store import Document, Layout, Vectors

# Of a request: points, and bytes, of which a server takes 32 MiB.
POINTS, LARGEST = 256, 30 * 2**20
NUMBERS = 2**20  # a document's vectors must have fewer
# Bytes that a number of a vector takes at most, and a word with its weight.
OF_A_NUMBER, OF_A_WORD = 23, 36


def sparse_vector(words: Sequence[str], mean: float) -> models.SparseVector:
    """BM25 of a document's words but for how rare they are; ``mean``: length of documents."""
    counts = Counter(map(word_id, words))
    damping = K1 * (1 - B + B * len(words) / mean)
    values = [count * (K1 + 1) / (count + damping) for count in counts.values()]
    return models.SparseVector(indices=list(counts), values=values)


def requests(
    documents: Sequence[Document], vectors: Vectors | Sequence[Vectors], mean: float
) -> Iterator[list[models.PointStruct]]:
    """Documents with their vectors as points, in lists for one request each.

    ``mean``: as for ``sparse_vector``.

    Raises:
        ValueError: A document has no vector, or is larger than a request.
    """
    points, size = list[models.PointStruct](), 0
    for each, vector in zip(documents, vectors, strict=True):
        point, more = _point(each, vector, mean)
        if points and (len(points) == POINTS or size + more > LARGEST):
            yield points
            points, size = [], 0
        points.append(point)
        size += more
    if points:
        yield points


def _point(document: Document, vector: Vectors, mean: float) -> tuple[models.PointStruct, int]:
    """A document as a point, and the bytes that it takes at most."""
    name = f"store: the document {show(document.id)}"
    if not 0 < vector.size < NUMBERS:
        raise ValueError(
            f"{name} has {len(vector):,} vectors of {vector.shape[-1]} dimensions, and Qdrant "
            f"takes from one vector to fewer than {NUMBERS:,} numbers; split it, or index with a "
            "smaller --document_max_length"
        )
    payload = {
        "id": document.id,
        "digest": document.digest,
        "source": document.source,
        "text": document.text,
        "metadata": document.metadata,
        **filterable(document.metadata),
    }
    words = sparse_vector(document.words, mean)
    size = len(json.dumps(payload, ensure_ascii=False).encode())
    size += OF_A_NUMBER * vector.size + OF_A_WORD * len(words.indices)
    if size > LARGEST:
        raise ValueError(
            f"{name} would be a request of up to {size / 2**20:.0f} MiB, and Qdrant takes "
            f"{LARGEST // 2**20}; split it"
        )
    kept: Any = {"dense": vector.tolist(), "words": words}
    return models.PointStruct(id=point_id(document.id), vector=kept, payload=payload), size


def vector_params(layout: Layout) -> models.VectorParams:
    """How vectors are kept."""
    quantization: Any = None
    if layout.quantization == "int8":
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99)
        quantization = models.ScalarQuantization(scalar=scalar)
    elif layout.quantization == "binary":
        quantization = models.BinaryQuantization(binary=models.BinaryQuantizationConfig())
    maxsim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    return models.VectorParams(
        size=layout.dimensions,
        distance=models.Distance.DOT,
        datatype=models.Datatype(layout.dtype),
        quantization_config=quantization,
        multivector_config=maxsim if layout.multi_vector else None,
    )
