"""Embeddings as clients want them: normalised, shortened, in fewer bits, base64."""

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import AliasChoices, Field

from common.quantization import OutputDtype, quantize
from serving.engine.similarity import unit_length
from serving.http.errors import wrong_field
from serving.routes.options import TextOptions
from serving.service import ModelOutput, Service, Text

# Shapes: N texts, H dimensions of an embedding.

Encoding = Literal["float", "base64"]
# Also Cohere's and Jina's word for float32 in base64.
OutputType = Literal[OutputDtype, "base64"]


class VectorOptions(TextOptions):
    """Options of bodies that are answered by embeddings."""

    dimensions: int | None = Field(
        None,
        ge=0,
        validation_alias=AliasChoices("dimensions", "output_dimension"),
        description="keep so many of the first dimensions; 0: all",
    )

    def integers(self) -> str | None:
        """The field that asks for integers, if one does."""
        return None


class OutputOptions(VectorOptions):
    """Options of bodies that name one type of numbers."""

    output_dtype: OutputType = Field(
        "float",
        validation_alias=AliasChoices("output_dtype", "embedding_type"),
        description="int8, uint8: 8 bits for each dimension; binary, ubinary: one bit, packed into "
        "int8 or uint8; base64: float in base64",
    )
    encoding_format: Encoding = Field(
        "float", description="numbers, or base64 of float32, int8 or uint8 in little-endian order"
    )

    def integers(self) -> str | None:
        """See ``VectorOptions``."""
        return "output_dtype" if are_integers(self.output_dtype) else None


async def embed(
    service: Service,
    texts: Sequence[Text],
    options: VectorOptions,
    *,
    param: str,
    is_list: bool = True,
    normalize: bool | None = None,
) -> tuple[ModelOutput, np.ndarray]:
    """Embed texts as a client wants it: the output of the model, and the vectors [N, H].

    ``param`` and ``is_list`` are as in ``Service.embed``. ``normalize`` is whether the client
    wants unit length; None: as the model does.
    """
    model = service.model("embedder")
    unit, most = model.embedder.normalize, model.embedder.dimension
    to_unit = unit if normalize is None else normalize
    dimensions = options.dimensions or most
    if unit and not to_unit:
        raise wrong_field(
            "normalize",
            "this model always normalizes its embeddings to unit length; leave normalize out, or "
            "give true",
        )
    if dimensions > most:
        raise wrong_field(
            "dimensions", f"must be at most {most}, the dimensions of the model, got {dimensions}"
        )
    integers = options.integers()
    if integers and model.similarity == "dot" and not to_unit:
        raise wrong_field(
            integers,
            "integers lose the length of an embedding, which this model's dot product needs; take "
            "float",
        )
    prompt = options.find_prompt(model)
    output = await service.embed(
        texts, param=param, truncation=options.requested_truncation, prompt=prompt, is_list=is_list
    )
    vectors = output.values[:, :dimensions]
    # A model that brings its embeddings to unit length gets them so after the cut too.
    if to_unit and (dimensions < most or not unit):
        vectors = unit_length(vectors)
    return output, np.ascontiguousarray(vectors)


def are_integers(output_type: OutputType) -> bool:
    """Whether embeddings of this type are integers."""
    return output_type not in ("float", "base64")


def as_asked(
    vectors: np.ndarray, output_type: OutputType, encoding: Encoding = "float"
) -> list[Any]:
    """Embeddings [N, H] in this type: rows of numbers, or each row in base64, little-endian."""
    rows = quantize(vectors, "float" if output_type == "base64" else output_type)
    if encoding == "float" and output_type != "base64":
        return list(rows)
    rows = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
    return [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]
