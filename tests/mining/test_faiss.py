"""Approximate search: exact scores, and what an exact search would find."""

import importlib.util
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from mining.search.index import FaissIndex, FaissKind, write_index
from vectors import CPU, vector_index

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="the extra faiss is not installed"
)


# FAISS's own bindings warn when they are imported.
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
@pytest.mark.parametrize("kind", get_args(FaissKind))
def test_documents_are_found_and_scored_exactly(kind: FaissKind, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 16))
    documents = centres[rng.integers(20, size=3000)] + 0.3 * rng.normal(size=(3000, 16))
    queries = centres[rng.integers(20, size=40)] + 0.3 * rng.normal(size=(40, 16))
    exact = vector_index(tmp_path, queries, documents, 2900)
    for name in ("one.faiss", "two.faiss"):
        write_index(exact.documents, 2900, kind, tmp_path / name, show_progress=False)
    assert (tmp_path / "one.faiss").read_bytes() == (tmp_path / "two.faiss").read_bytes()
    index = FaissIndex(exact.queries, exact.documents, 2900, CPU, tmp_path / "one.faiss")
    for query, ranking in enumerate(index.search(0, 40, 20)):
        places = [place for place, _ in ranking]
        assert len(set(places)) == 20
        assert max(places) < 2900
        scores = [score for _, score in ranking]
        assert scores == sorted(scores, reverse=True)
        assert scores == exact.scores(query, places)
    assert 0.9 < index.recall(range(40), 20) <= 1.0
    # Where all clusters are looked at, only the rounding to a byte is left.
    index.index.nprobe = index.index.nlist
    found, wanted = index.search(0, 40, 20), exact.search(0, 40, 20)
    shares = [
        len({place for place, _ in one} & {place for place, _ in other}) / 20
        for one, other in zip(found, wanted, strict=True)
    ]
    assert index.recall(range(40), 20) == pytest.approx(sum(shares) / 40)
    assert sum(shares) / 40 > 0.97
