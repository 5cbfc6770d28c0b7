"""Embeddings as clients ask for them: of unit length, shorter, as text."""

import base64
from typing import Any, Literal

import numpy as np

from common.similarity import Similarity
from encoders.kinds import retrieves
from serving.engine.model import ServedModel
from serving.http.errors import ServingError

# Shapes: N texts, H dimensions of an embedding.

Encoding = Literal["float", "base64"]


def check_vectors(model: ServedModel, normalize: bool | None, dimensions: int | None) -> None:
    """Refuse what the model cannot give, before anything is computed.

    Args:
        model: An embedder.
        normalize: Whether the client wants unit length; None: as the model does.
        dimensions: How many the client wants; None: all.
    """
    assert retrieves(model.encoder)
    if normalize is False and model.encoder.normalize:
        raise ServingError(
            "validation_error",
            "normalize: this model brings its embeddings to unit length itself; leave normalize "
            "out, or give true",
            "normalize",
        )
    if dimensions is not None and dimensions > model.encoder.dimension:
        raise ServingError(
            "validation_error",
            f"dimensions: {dimensions} are more than the {model.encoder.dimension} of the model",
            "dimensions",
        )


def finish(
    values: np.ndarray, model: ServedModel, normalize: bool | None, dimensions: int | None
) -> np.ndarray:
    """Cut embeddings [N, H] to ``dimensions``, and bring them to unit length if asked to.

    A model that brings its embeddings to unit length gets them so after the cut too.
    """
    assert retrieves(model.encoder)
    own = model.encoder.normalize
    cut = dimensions is not None and dimensions < values.shape[1]
    if cut:
        values = values[:, :dimensions]
    if (normalize if normalize is not None else own) and (cut or not own):
        values = unit_length(values)
    return np.ascontiguousarray(values)


def unit_length(values: np.ndarray) -> np.ndarray:
    """Rows [N, H] divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = values / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def similarities(
    one: np.ndarray, other: np.ndarray, similarity: Similarity = "cosine"
) -> np.ndarray:
    """Of rows [N, H] with rows [N, H] (or [1, H]): [N]."""
    if similarity == "dot":
        return (one * other).sum(axis=1)
    return (unit_length(one) * unit_length(other)).sum(axis=1).clip(-1, 1)


def as_asked(row: np.ndarray, encoding: Encoding) -> Any:
    """An embedding [H] as numbers, or as base64 of little-endian float32."""
    if encoding == "float":
        return row
    return base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode("ascii")
