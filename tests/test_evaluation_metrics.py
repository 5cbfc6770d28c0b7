"""Metrics against hand-made rankings, against trec_eval and against scikit-learn."""

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from evaluation.metrics import ndcg, order, per_query, recall, reciprocal_rank

RANKING = ["d1", "d2", "d3", "d4"]


def test_ndcg_by_hand() -> None:
    judgements = {"d2": 3, "d4": 1, "d9": 2}
    found = 3 / math.log2(3) + 1 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(RANKING, judgements, 10) == pytest.approx(found / ideal)


def test_ndcg_is_cut_on_both_sides() -> None:
    judgements = {"d2": 3, "d4": 1, "d9": 2}
    ideal = 3 + 2 / math.log2(3)
    assert ndcg(RANKING, judgements, 2) == pytest.approx(3 / math.log2(3) / ideal)


def test_ndcg_of_the_ideal_ranking_is_one() -> None:
    assert ndcg(["d1", "d2"], {"d1": 2, "d2": 1, "d3": 0}, 10) == 1.0


def test_recall_by_hand() -> None:
    judgements = {"d1": 1, "d4": 2, "d9": 1, "d3": 0}
    assert recall(RANKING, judgements, 10) == pytest.approx(2 / 3)
    assert recall(RANKING, judgements, 3) == pytest.approx(1 / 3)


def test_reciprocal_rank_by_hand() -> None:
    assert reciprocal_rank(RANKING, {"d3": 1, "d4": 1}, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(RANKING, {"d3": 1}, 2) == 0.0


@pytest.mark.parametrize("metric", [ndcg, recall, reciprocal_rank])
def test_no_relevant_document_counts_zero(metric) -> None:  # type: ignore[no-untyped-def]
    assert metric(RANKING, {}, 10) == 0.0
    assert metric(RANKING, {"d1": 0, "d2": -1}, 10) == 0.0
    assert metric([], {"d1": 1}, 10) == 0.0


def test_ties_go_to_the_greater_id() -> None:
    assert order({"a": 1.0, "c": 1.0, "b": 1.0, "d": 2.0}) == ["d", "c", "b", "a"]


def test_per_query_keeps_the_order_and_counts_a_missing_ranking() -> None:
    values = per_query({"问": ["文"]}, {"q": {"d": 1}, "问": {"文": 1}}, k=10)
    assert {name: array.tolist() for name, array in values.items()} == {
        "NDCG@10": [0.0, 1.0],
        "Recall@10": [0.0, 1.0],
        "MRR@10": [0.0, 1.0],
    }


documents = st.sampled_from([f"d{number}" for number in range(12)] + ["文一", "文二"])
# Few distinct scores, which float32 holds exactly: ties, as trec_eval sees them.
runs = st.dictionaries(documents, st.integers(-3, 3).map(lambda n: n / 4), min_size=1)
judgements = st.dictionaries(documents, st.integers(-1, 3), min_size=1)


@given(run=runs, judged=judgements, k=st.integers(1, 12))
def test_trec_eval_agrees(run: dict[str, float], judged: dict[str, int], k: int) -> None:
    ranking = order(run)
    measures = {f"ndcg_cut.{k}", f"recall.{k}"}
    theirs = pytrec_eval.RelevanceEvaluator({"q": judged}, measures).evaluate({"q": run})["q"]
    assert ndcg(ranking, judged, k) == pytest.approx(theirs[f"ndcg_cut_{k}"])
    assert recall(ranking, judged, k) == pytest.approx(theirs[f"recall_{k}"])
    # trec_eval's reciprocal rank has no cut: give it the documents above ours.
    above = {"q": {document: run[document] for document in ranking[:k]}}
    theirs = pytrec_eval.RelevanceEvaluator({"q": judged}, {"recip_rank"}).evaluate(above)["q"]
    assert reciprocal_rank(ranking, judged, k) == pytest.approx(theirs["recip_rank"])


@given(gains=st.lists(st.integers(0, 3), min_size=2, max_size=15), k=st.integers(1, 15))
def test_scikit_learn_agrees(gains: list[int], k: int) -> None:
    ranking = [f"d{number}" for number in range(len(gains))]
    scores = np.arange(len(gains), 0, -1)
    theirs = ndcg_score([gains], [scores], k=k)
    assert ndcg(ranking, dict(zip(ranking, gains, strict=True)), k) == pytest.approx(theirs)
