"""benchmarks/stores/layouts.py: what the table says is what was searched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.stores.corpora import synthetic
from benchmarks.stores.layouts import Job, measure


@pytest.mark.parametrize(
    ("kind", "dimensions"),
    [("lancedb", 384), ("lancedb", 96),
     pytest.param("qdrant-engine", 96, marks=pytest.mark.slow)],
)  # fmt: skip
def test_searches_without_an_index_find_the_best(
    tmp_path: Path, kind: str, dimensions: int
) -> None:
    corpus = synthetic(tmp_path, 5000, 5)  # two blocks
    vectors = np.concatenate(list(corpus.vectors(dimensions)))
    assert vectors.shape == (5000, dimensions)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5000), abs=1e-5)
    best = corpus.best(dimensions, 10)
    metadata = {each.id: each.metadata for block in corpus.documents() for each in block}
    assert len(metadata) == 5000
    filters: dict[str, Callable[[Any], bool]] = {
        "lang": lambda about: about["lang"] == "zh",
        "year": lambda about: about["year"] >= 2023,
    }
    for name, passes in filters.items():
        assert sum(map(passes, metadata.values())) == pytest.approx(500, rel=0.15)
        assert all(passes(metadata[hit]) for hits in best[name].values() for hit in hits)
    row = measure(Job(kind, "float32", dimensions, corpus, best, None))
    assert row[:3] == [kind, "float32", str(dimensions)]
    assert row[8:11] == ["1.000"] * 3
