"""Our documents and filters as Qdrant's models."""

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from qdrant_client import models

from common.bm25 import K1, B
from loaders.parsing.fields import show
from stores.filters import AnyOf, Compared, Filter
from stores.store import Document, Layout, Vectors

# Of a request: points, and numbers of their vectors, which are 23 of the 32 MB that a server takes.
# A single document must have fewer numbers.
POINTS, NUMBERS = 256, 2**20


def point_id(text: str) -> str:
    """The id of a point, which must be a number or a UUID."""
    return str(uuid.UUID(bytes=hashlib.blake2b(text.encode(), digest_size=16).digest()))


def word_id(word: str) -> int:
    """The dimension of a word in sparse vectors: 32 bits."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "little")


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
        ValueError: A document has more vectors than Qdrant takes, or none.
    """
    points, numbers = list[models.PointStruct](), 0
    for each, vector in zip(documents, vectors, strict=True):
        if not 0 < vector.size < NUMBERS:
            raise ValueError(
                f"store: the document {show(each.id)} has {len(vector):,} vectors of "
                f"{vector.shape[-1]} dimensions, and Qdrant takes from one vector to fewer than "
                f"{NUMBERS:,} numbers; split it, or index with a smaller --document_max_length"
            )
        if points and (len(points) == POINTS or numbers + vector.size > NUMBERS):
            yield points
            points, numbers = [], 0
        payload = {
            "id": each.id,
            "digest": each.digest,
            "source": each.source,
            "text": each.text,
            "metadata": each.metadata,
        }
        kept: Any = {"dense": vector.tolist(), "words": sparse_vector(each.words, mean)}
        points.append(models.PointStruct(id=point_id(each.id), vector=kept, payload=payload))
        numbers += vector.size
    if points:
        yield points


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


def as_filter(where: Filter | None, ids: Sequence[str] | None) -> models.Filter | None:
    """The filter of a search."""
    must: list[Any] = []
    must_not: list[Any] = []
    for condition in where or ():
        keys, negated = _keys(condition.path), isinstance(condition, AnyOf) and condition.negated
        any_of = models.Filter(should=[test for key in keys for test in _tests(condition, key)])
        (must_not if negated else must).append(any_of)
    if ids is not None:
        must.append(models.HasIdCondition(has_id=[point_id(each) for each in ids]))
    return models.Filter(must=must, must_not=must_not) if must or must_not else None


def _tests(condition: AnyOf | Compared, key: str) -> list[models.FieldCondition]:
    """Of which a field must pass one."""
    if isinstance(condition, Compared):
        numbers = models.Range(**{condition.by: condition.value})
        return [models.FieldCondition(key=key, range=numbers)]
    return [_equals(key, value) for value in condition.values]


def _equals(key: str, value: Any) -> models.FieldCondition:
    if isinstance(value, str | bool):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    # Numbers match as numbers: 1 is 1.0.
    return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))


def _keys(path: tuple[str, ...]) -> list[str]:
    """Where a field can be: each step leads to a value, or to a list of these."""
    return [".".join(["metadata", *steps]) for steps in product(*([s, f"{s}[]"] for s in path))]
