"""A fingerprint of what made the vectors of a table: those of two models are never compared."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from encoders.kinds import VectorModel
from encoders.opening.model_digest import model_digest

_WORDS = {
    "weights": "weights, tokenizer or configuration",
    "prompt": "document prompt",
    "max_length": "tokens of a document",
    "dimensions": "dimensions",
    "similarity": "similarity",
}


@dataclass(frozen=True)
class Fingerprint:
    """Everything that decides the vector of a document.

    Args:
        weights: A digest of the model's weights, tokenizer and pooling.
        prompt: What stands before a document.
        max_length: Tokens after which it is cut.
        dimensions: Of a vector.
        similarity: By which vectors are compared.
    """

    weights: str
    prompt: str
    max_length: int
    dimensions: int
    similarity: str

    @property
    def digest(self) -> str:
        """12 characters, for names."""
        content = json.dumps(dataclasses.astuple(self), ensure_ascii=False)
        return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()

    def differences(self, about: dict[str, Any]) -> list[str]:
        """In what a model, described in a catalog, differs from this one."""
        found = []
        for name, words in _WORDS.items():
            ours, theirs = getattr(self, name), about.get(name)
            if ours != theirs:
                values = "" if name == "weights" else f" ({theirs!r} there, {ours!r} here)"
                found.append(words + values)
        return found


def fingerprint(model: VectorModel, max_length: int | None = None) -> Fingerprint:
    """Of a model that truncates documents to ``max_length`` tokens; None: to its own limit."""
    return Fingerprint(
        model_digest(model),
        model.find_prompt("document"),
        model.find_length("document", max_length),
        model.dimension,
        model.similarity,
    )
