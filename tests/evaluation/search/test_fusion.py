"""Fused scores: the arithmetic against a naive loop, the weight that is chosen, the file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.bm25 import BM25
from common.run_files import FUSION_FILE
from encoders import Embedder
from evaluation.data.sets import RetrievalData
from evaluation.metrics.ranking import per_query
from evaluation.search.distributed import InferenceSettings
from evaluation.search.fusion import (
    BM25_SCORES,
    MULTIPLES,
    Fusion,
    TwoScores,
    best,
    bm25_weight,
    equal_spread,
    first_stage_digest,
    fuse,
    read_fusion,
    try_weights,
)
from evaluation.search.retrieval import retrieve, retrieve_with_bm25
from tiny import TEXTS

DOCUMENTS = {f"d{number}": text for number, text in enumerate(TEXTS)}
QUERIES = {"q1": "the capital of France", "问1": "北京 猫", "none": "zzz"}
DATA = RetrievalData(DOCUMENTS, QUERIES, {"q1": {"d0": 1}, "问1": {"d2": 1}, "none": {"d1": 1}})


@pytest.fixture
def embedder(tiny_bert: Path) -> Embedder:
    return Embedder.from_pretrained(tiny_bert)


def naive(embedder: Embedder, query: str, document: str) -> tuple[float, float]:
    """Cosine and BM25 of one pair of texts, each encoded by itself."""
    one, other = embedder.encode([query])[0], embedder.encode([document])[0]
    index = BM25(list(DOCUMENTS.values()))
    words = dict(next(index.search([query], len(DOCUMENTS))))
    return (one @ other).item(), words.get(list(DOCUMENTS.values()).index(document), 0.0)


def test_only_a_weight_of_bm25_counts_in_a_search() -> None:
    assert bm25_weight(Fusion(0.5, BM25_SCORES)) == 0.5
    assert bm25_weight(Fusion(0.5, "the digest of a first stage")) == bm25_weight(None) == 0


def test_both_scores_of_every_document(embedder: Embedder) -> None:
    """A small corpus is found whole, whichever of the two finds a document."""
    own, by_words, alone = retrieve_with_bm25(embedder, DATA, 3)
    for query, text in QUERIES.items():
        assert own[query].keys() == by_words[query].keys() == DOCUMENTS.keys()
        for name, document in DOCUMENTS.items():
            cosine, bm25 = naive(embedder, text, document)
            assert own[query][name] == pytest.approx(cosine, abs=1e-5)
            assert by_words[query][name] == pytest.approx(bm25, abs=1e-5)
    assert best(own, 3) == retrieve(embedder, DATA, 3) == alone
    assert set(by_words["none"].values()) == {0.0}


def test_what_only_words_find_is_found(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The union of both lists, with both scores of each document."""
    monkeypatch.setattr("evaluation.search.retrieval.DEPTH", 1)
    own, by_words, _ = retrieve_with_bm25(embedder, DATA, 1)
    whole, all_words, _ = retrieve_with_bm25(embedder, DATA, 100)
    for query, scores in own.items():
        nearest = max(whole[query], key=whole[query].__getitem__)
        wordy = max(all_words[query], key=all_words[query].__getitem__)
        expected = {nearest, wordy} if all_words[query][wordy] > 0 else {nearest}
        assert scores.keys() == by_words[query].keys() == expected
        assert scores == pytest.approx({name: whole[query][name] for name in scores})
    assert any(len(scores) == 2 for scores in own.values())


def test_candidates_and_documents_that_are_the_query(embedder: Embedder) -> None:
    identical_documents = replace(DATA, identical_documents={"q1": "d0"})
    own, by_words, _ = retrieve_with_bm25(embedder, identical_documents, 3)
    assert "d0" not in own["q1"] and "d0" not in by_words["q1"] and "d0" in own["问1"]
    candidates = {"q1": ["d0", "d3"], "问1": ["d2"], "none": []}
    own, by_words, _ = retrieve_with_bm25(embedder, replace(DATA, candidates=candidates), 3)
    assert {query: list(found) for query, found in by_words.items()} == candidates
    assert own == {
        query: pytest.approx(found)
        for query, found in retrieve(embedder, replace(DATA, candidates=candidates), 3).items()
    }


def test_fused_scores_and_ties() -> None:
    own = {"q": {"a": 1.0, "b": 2.0, "c": 0.0}}
    fused = fuse(own, {"q": {"a": 4.0, "c": 4.0, "elsewhere": 9.0}}, 0.5)
    assert fused == {"q": {"a": 3.0, "c": 2.0, "b": 2.0}}
    assert list(fused["q"]) == ["a", "c", "b"]  # equal scores: by falling id
    assert best(fused, 1) == {"q": {"a": 3.0}}


def made_up(
    seed: int, noise: tuple[float, float]
) -> tuple[RetrievalData, list[dict[str, dict[str, float]]]]:
    """60 queries of 10 documents with one relevant, and two noisy scores of how relevant."""
    random = np.random.default_rng(seed)
    queries = [f"q{number}" for number in range(60)]
    names = [f"d{number}" for number in range(10)]
    relevant = {query: names[random.integers(10)] for query in queries}
    runs = [
        {
            query: {
                name: float((name == relevant[query]) + spread * random.normal()) * scale
                for name in names
            }
            for query in queries
        }
        for spread, scale in zip(noise, (1, 100), strict=True)
    ]
    qrels = {query: {name: 1.0} for query, name in relevant.items()}
    data = RetrievalData(dict.fromkeys(names, ""), dict.fromkeys(queries, ""), qrels)
    return data, runs


def test_two_good_scores_are_better_together_whatever_their_scale() -> None:
    data, (own, other) = made_up(0, (0.5, 0.5))
    trials = list(try_weights(TwoScores(own, other, own), data, "ndcg@10"))
    chosen = max(trials, key=lambda trial: trial.value)
    # Both are as noisy, so the best weight levels their scales, which are 1 and 100.
    assert 0.25 / 100 <= chosen.weight <= 4 / 100
    assert equal_spread(own, other) == pytest.approx(0.01, rel=0.1)
    assert chosen.to_own.sign == chosen.to_other.sign == 1
    run = fuse(own, other, chosen.weight)
    assert chosen.value == per_query(run, data.qrels, ["ndcg@10"])["ndcg@10"].mean()
    alone = [per_query(each, data.qrels, ["ndcg@10"])["ndcg@10"].mean() for each in (own, other)]
    assert [chosen.to_own.base, chosen.to_other.base] == pytest.approx(alone)
    assert trials[0].weight == 0 and trials[0].to_own.difference == 0
    assert len(trials) == len(MULTIPLES)


def test_noise_is_not_surely_better_than_nothing() -> None:
    data, (own, other) = made_up(1, (0.2, 1e6))
    chosen = max(
        try_weights(TwoScores(own, other, own), data, "ndcg@10"), key=lambda trial: trial.value
    )
    assert chosen.to_own.sign <= 0


def test_equal_scores_cannot_be_fused() -> None:
    data, (own, _) = made_up(2, (0.5, 0.5))
    nothing = {query: dict.fromkeys(scores, 1.0) for query, scores in own.items()}
    with pytest.raises(ValueError, match="nothing to fuse"):
        list(try_weights(TwoScores(own, nothing, own), data, "ndcg@10"))


def test_the_file_and_the_first_stage_it_is_for(
    tiny_bert: Path, tmp_path: Path, embedder: Embedder
) -> None:
    assert read_fusion(str(tiny_bert)) is None
    embedder.save_pretrained(tmp_path)
    hybrid = Fusion(0.25, "bm25")
    digests = [first_stage_digest(embedder, each) for each in (None, hybrid)]
    for digest in digests:
        Fusion(2.0, digest, "some/embedder").write(tmp_path)
        assert read_fusion(str(tmp_path)) == Fusion(2.0, digest, "some/embedder")
    (found,) = [read_fusion(str(tmp_path))]
    assert found is not None and found.first_stage_mismatch(digests[1], "x") is None
    reason = found.first_stage_mismatch(digests[0], "other/embedder")
    assert reason and "some/embedder" in reason and "other/embedder" in reason
    for wrong in (
        "{",
        "[]",
        '{"weight": 0, "other": "bm25"}',
        '{"other": "bm25"}',
        '{"weight": 1}',
    ):
        (tmp_path / FUSION_FILE).write_text(wrong)
        with pytest.raises(ValueError, match=r"fusion\.json is damaged"):
            read_fusion(str(tmp_path))
    assert json.loads(wrong) == {"weight": 1}


def test_a_models_own_search_is_what_it_finds_by_itself(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that misses a document is not helped by the words that find it."""

    def miss(index: Any, queries: Any, ids: Any, k: int, *, query_ids: Any) -> Any:
        return {query: {"d9": 0.5} for query in query_ids}

    monkeypatch.setattr("evaluation.search.retrieval.build_index", lambda *_: None)
    monkeypatch.setattr("evaluation.search.retrieval.search_index", miss)
    own, _, alone = retrieve_with_bm25(embedder, DATA, 3, InferenceSettings(index="hnsw"))
    assert alone == {query: {"d9": 0.5} for query in QUERIES}
    assert "d2" in own["q1"] and "d9" in own["q1"]


def test_other_prompts_make_another_first_stage(embedder: Embedder) -> None:
    digest = first_stage_digest(embedder, None)
    assert digest == first_stage_digest(embedder, None)
    embedder.replace_prompts("find: ", None)
    assert digest != first_stage_digest(embedder, None)
