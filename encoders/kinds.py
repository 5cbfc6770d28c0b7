"""Tell an embedder's folder from a reranker's."""

import json
from pathlib import Path
from typing import Literal

from encoders.opening.source import resolve_model

Kind = Literal["embedder", "reranker"]


def detect_kind(name_or_path: str | Path, revision: str | None = None) -> Kind:
    """What a model was saved as: a sequence classifier is a reranker, all else an embedder.

    Args:
        name_or_path: A folder, a name on the Hub, or ``package://<module>/<path>``.
        revision: Branch, tag or commit on the Hub.

    Raises:
        ValueError: There is no such model.
    """
    config = resolve_model(str(name_or_path), revision) / "config.json"
    if not config.is_file():  # its backbone stands in a folder of its own, as an embedder's may
        return "embedder"
    architectures = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    classifier = any(str(name).endswith("ForSequenceClassification") for name in architectures)
    return "reranker" if classifier else "embedder"
