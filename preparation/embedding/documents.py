"""Embed documents by the table: in scripts/prepare_data.py embed, in Ray Data, in Spark."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import pyarrow as pa
import torch

from common.hardware import bf16_is_fast, prepare_cpu
from encoders.inference import InferenceSettings
from encoders.kinds import open_model, retrieves
from encoders.opening.bf16_weights import place_for_inference
from encoders.opening.model_digest import model_digest
from loaders.beir.texts import IDS, find_id, find_text
from loaders.parsing.fields import RowError

DType = Literal["float32", "float16"]


class EmbedDocuments:
    """Turns tables of documents into tables of their ids and vectors.

    A class for ``map_batches`` of Ray Data and, made once per partition, for ``mapInArrow`` of
    Spark. It computes on the GPU of this process, if there is one.

    Args:
        model: An embedder's folder or name.
        document_prompt: Put before each text; None: the model's prompt for documents.
        truncate_dim: Keep so many of the first dimensions.
        dtype: Of the vectors.
        trust_remote_code: Let Python code of the model's folder run.
        settings: ``max_length``, ``tokens_per_batch`` and ``bf16``; see ``InferenceSettings``.

    Attributes:
        schema: Of what it returns: ``id``, a string, and ``vector``, a list of numbers.

    Raises:
        ValueError: The model is no embedder.
    """

    def __init__(
        self,
        model: str,
        *,
        document_prompt: str | None = None,
        truncate_dim: int | None = None,
        dtype: DType = "float32",
        trust_remote_code: bool = False,
        **settings: Unpack[InferenceSettings],
    ) -> None:
        prepare_cpu()
        found = open_model(model, truncate_dim=truncate_dim, trust_remote_code=trust_remote_code)
        if not retrieves(found):
            raise ValueError(f"model: {model} is of kind {found.kind}; give an embedder")
        found.replace_prompts(None, document_prompt)
        self.embedder = place_for_inference(found, own_device())
        self.dtype, self.settings = dtype, settings
        vector = pa.list_(pa.float16() if dtype == "float16" else pa.float32())
        self.schema = pa.schema([("id", pa.string()), ("vector", vector)])

    def __call__(self, documents: pa.Table) -> pa.Table:
        """Embed documents: columns as in a ``corpus.jsonl``.

        Raises:
            ValueError: A row is no document.
        """
        read = [read_document(row) for row in documents.to_pylist()]
        return self.embed([name for name, _ in read], [text for _, text in read])

    def embed(self, ids: Sequence[str], texts: Sequence[str]) -> pa.Table:
        """The table of N ids and the vectors of N texts, in the order given.

        Raises:
            ValueError: A vector is not finite.
        """
        vectors = self.embedder.encode(texts, prompt_name="document", **self.settings)
        numbers = vectors.to(getattr(torch, self.dtype))
        if not numbers.isfinite().all():
            wrong = ids[int((~numbers.isfinite().all(dim=1)).nonzero()[0])]
            raise ValueError(f"the vector of document {wrong} is not finite in {self.dtype}")
        ends = pa.array(range(0, numbers.numel() + 1, self.embedder.dimension), pa.int32())
        rows = pa.ListArray.from_arrays(ends, pa.array(numbers.flatten().numpy()))
        return pa.table([pa.array(ids, pa.string()), rows], schema=self.schema)

    def identity(self) -> dict[str, Any]:
        """All that the vectors depend on, for a file to keep."""
        bf16 = self.settings.get("bf16", False) and bf16_is_fast(self.embedder.device)
        return {
            "model": model_digest(self.embedder),
            "prompt": self.embedder.find_prompt("document"),
            "max_length": self.settings.get("max_length") or self.embedder.max_length,
            "dimension": self.embedder.dimension,
            "bf16": bf16,
            "dtype": self.dtype,
        }


def own_device() -> torch.device:
    """The accelerator of this process among those of its machine; else the CPU."""
    kind = torch.accelerator.current_accelerator()
    if kind is None:
        return torch.device("cpu")
    return torch.device(kind.type, int(os.environ.get("LOCAL_RANK", "0")))


def read_document(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The id of a document, and its title and text.

    Raises:
        RowError: One of them is missing, or of another type.
    """
    name = find_id(fields, "document")
    if name is None:
        raise RowError(f"missing id ({', '.join(IDS['document'])})")
    return name, find_text(fields, "document")
