"""Models for runs of the training script."""

from pathlib import Path

import pytest

from runs import NO_DROPOUT, TEXTS
from tiny import save_backbone, save_classifier


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models that know the topics' words, with and without dropout. Do not write to them."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "embedder": save_backbone(folder / "embedder", TEXTS),
        "reranker": save_classifier(folder / "reranker", TEXTS),
        "embedder without dropout": save_backbone(folder / "embedder0", TEXTS, **NO_DROPOUT),
        "reranker without dropout": save_classifier(folder / "reranker0", TEXTS, **NO_DROPOUT),
    }
