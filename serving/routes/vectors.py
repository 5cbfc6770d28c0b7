"""Embeddings as clients want them: normalised, shortened, base64."""

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from serving.engine.model import ServedModel
from serving.engine.similarity import unit_length
from serving.http.errors import ServingError
from serving.routes.options import TextOptions
from serving.service import ModelOutput, Service, Text

# Shapes: N texts, H dimensions of an embedding.

Encoding = Literal["float", "base64"]


class VectorOptions(TextOptions):
    """Options of bodies that are answered by embeddings."""

    dimensions: int | None = Field(None, ge=1, description="keep so many of the first dimensions")


async def embed(
    service: Service,
    texts: Sequence[Text],
    options: VectorOptions,
    *,
    param: str,
    numbered: bool = True,
    normalize: bool | None = None,
) -> tuple[ModelOutput, np.ndarray]:
    """Embed texts as a client wants it: the output of the model, and the vectors [N, H].

    Args:
        service: Embeds.
        texts: Texts or token ids.
        options: Prompt, truncation, and how many dimensions the client wants.
        param: The field of the texts, for messages.
        numbered: Whether the field is a list.
        normalize: Whether the client wants unit length; None: as the model does.
    """
    model, dimensions = service.model("embedder"), options.dimensions
    check_vectors(model, normalize, dimensions)
    output = await service.embed(
        texts,
        param=param,
        prompt=options.find_prompt(model),
        cut=options.cut,
        numbered=numbered,
    )
    return output, finish(output.values, model, normalize, dimensions)


def check_vectors(model: ServedModel, normalize: bool | None, dimensions: int | None) -> None:
    """Refuse options that the model does not support, before anything is computed."""
    if normalize is False and model.embedder.normalize:
        raise ServingError(
            "validation_error",
            "normalize: this model brings its embeddings to unit length itself; leave normalize "
            "out, or give true",
            "normalize",
        )
    if dimensions is not None and dimensions > model.embedder.dimension:
        raise ServingError(
            "validation_error",
            f"dimensions: {dimensions} are more than the {model.embedder.dimension} of the model",
            "dimensions",
        )


def finish(
    values: np.ndarray, model: ServedModel, normalize: bool | None, dimensions: int | None
) -> np.ndarray:
    """Cut embeddings [N, H] to ``dimensions``, and bring them to unit length if asked to.

    A model that brings its embeddings to unit length gets them so after the cut too.
    """
    own = model.embedder.normalize
    cut = dimensions is not None and dimensions < values.shape[1]
    if cut:
        values = values[:, :dimensions]
    if (normalize if normalize is not None else own) and (cut or not own):
        values = unit_length(values)
    return np.ascontiguousarray(values)


def as_asked(vectors: np.ndarray, encoding: Encoding) -> list[Any]:
    """Embeddings [N, H] as rows of numbers, or each as base64 of little-endian float32."""
    if encoding == "float":
        return list(vectors)
    rows = vectors.astype("<f4", copy=False)
    return [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]
