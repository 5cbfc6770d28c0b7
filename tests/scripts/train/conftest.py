"""Models for runs of the training script."""

from pathlib import Path

import pytest

from runs import NO_DROPOUT, TEXTS
from tiny import save_backbone, save_classifier


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models that know the topics' words, with and without dropout. Do not write to them."""
    folder = tmp_path_factory.mktemp("models")
    backbone = save_backbone(folder / "embedder", TEXTS)
    without_dropout = save_backbone(folder / "embedder0", TEXTS, **NO_DROPOUT)
    return {
        "embedder": backbone,
        "multi_vector": backbone,
        "reranker": save_classifier(folder / "reranker", TEXTS),
        "embedder without dropout": without_dropout,
        "multi_vector without dropout": without_dropout,
        "reranker without dropout": save_classifier(folder / "reranker0", TEXTS, **NO_DROPOUT),
    }
