"""What Qdrant's client sends, as the types of Qdrant Edge, and what an answer has."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

DATATYPES = {
    models.Datatype.FLOAT32: edge.VectorStorageDatatype.Float32,
    models.Datatype.FLOAT16: edge.VectorStorageDatatype.Float16,
}


def config(given: models.CreateCollection) -> edge.EdgeConfig:
    """How the points of a collection are kept."""
    assert isinstance(given.vectors, dict)
    vectors = {name: vector_params(params) for name, params in given.vectors.items()}
    sparse = {
        name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf if params.modifier else None)
        for name, params in (given.sparse_vectors or {}).items()
    }
    if not vectors and not sparse:  # which the library refuses, and the server does not
        sparse = {"none": edge.EdgeSparseVectorParams()}
    return edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse)


def vector_params(given: models.VectorParams) -> edge.EdgeVectorParams:
    """How vectors are kept."""
    quantization: Any = None
    if isinstance(given.quantization_config, models.ScalarQuantization):
        scalar = given.quantization_config.scalar
        quantization = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, scalar.quantile)
    elif isinstance(given.quantization_config, models.BinaryQuantization):
        quantization = edge.BinaryQuantizationConfig()
    several = given.multivector_config is not None
    return edge.EdgeVectorParams(
        size=given.size,
        distance=edge.Distance.Dot,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)
        if several
        else None,
        datatype=DATATYPES[given.datatype or models.Datatype.FLOAT32],
        quantization_config=quantization,
    )


def vectors_of(given: Any) -> Any:
    """Vectors of a request."""
    if isinstance(given, models.SparseVector):
        return edge.SparseVector(given.indices, given.values)
    if isinstance(given, dict) and given.keys() == {"indices", "values"}:
        return edge.SparseVector(**given)
    if isinstance(given, dict):
        return {name: vectors_of(vector) for name, vector in given.items()}
    return given


def filter_of(given: models.Filter | None) -> edge.Filter | None:
    """A filter of a request."""
    if given is None:
        return None
    parts = {
        name: [condition(each) for each in getattr(given, name) or []] or None
        for name in ("must", "should", "must_not")
    }
    return edge.Filter(**parts)


def condition(given: Any) -> Any:
    """A condition of a filter."""
    if isinstance(given, models.Filter):
        return filter_of(given)
    if isinstance(given, models.HasIdCondition):
        return edge.HasIdCondition(set(given.has_id))
    assert isinstance(given, models.FieldCondition), given
    if isinstance(given.match, models.MatchValue):
        value: Any = given.match.value
        if isinstance(value, bool):  # which the library would take for a number
            value = np.bool_(value)
        return edge.FieldCondition(given.key, match=edge.MatchValue(value))
    if isinstance(given.match, models.MatchAny):
        return edge.FieldCondition(given.key, match=edge.MatchAny(list(given.match.any)))
    assert isinstance(given.range, models.Range), given
    return edge.FieldCondition(given.key, range=edge.RangeFloat(**given.range.model_dump()))


def params_of(given: models.SearchParams | None) -> edge.SearchParams | None:
    """How it is searched."""
    if given is None:
        return None
    asked = given.quantization or models.QuantizationSearchParams()
    quantization = edge.QuantizationSearchParams(
        ignore=bool(asked.ignore), rescore=asked.rescore, oversampling=asked.oversampling
    )
    return edge.SearchParams(
        hnsw_ef=given.hnsw_ef, exact=bool(given.exact), quantization=quantization
    )


def records(found: Iterable[Any], vectors: bool = False) -> list[dict[str, Any]]:
    """Points of an answer."""
    answer = []
    for point in found:
        record: dict[str, Any] = {"id": str(point.id), "payload": point.payload}
        if vectors:
            record["vector"] = point.vector
        if hasattr(point, "score"):
            record |= {"score": point.score, "version": point.version}
        answer.append(record)
    return answer


def state(created: models.CreateCollection) -> dict[str, Any]:
    """Of a collection that is being indexed."""
    kept = created.model_dump(exclude_none=True)
    optimizer = {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "flush_interval_sec": 5,
    }
    return {
        "status": "yellow",
        "optimizer_status": "ok",
        "segments_count": 0,
        "payload_schema": {},
        "config": {
            "params": {key: kept[key] for key in ("vectors", "sparse_vectors") if key in kept},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": optimizer,
            "metadata": created.metadata,
        },
    }


def points_of(info: Any) -> dict[str, Any]:
    """What the state of a collection tells of its points."""
    return {
        "status": "green",
        "points_count": info.points_count,
        "indexed_vectors_count": info.indexed_vectors_count,
        "segments_count": info.segments_count,
        "payload_schema": {
            field: {
                "data_type": str(index.data_type).split(".")[-1].lower(),
                "points": index.points,
            }
            for field, index in info.payload_schema.items()
        },
    }
