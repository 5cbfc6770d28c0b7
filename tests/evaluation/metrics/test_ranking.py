"""Metrics on paper: hand-made rankings, the rules for odd cases, and clear errors."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from evaluation.metrics.ranking import METRICS, UNCUT, check_metrics, order, per_query

SCORES = {"d1": 0.9, "d2": 0.7, "d3": 0.5, "d4": 0.3}
ALL = [*(f"{name}@10" for name in METRICS), *UNCUT]


def measure(metric: str, judged: Mapping[str, float], relevant_from: float | None = None) -> float:
    """One metric of the ranking d1, d2, d3, d4."""
    return float(per_query({"q": SCORES}, {"q": judged}, [metric], relevant_from)[metric][0])


def test_ndcg_by_hand() -> None:
    judged = {"d2": 3, "d4": 1, "d9": 2}
    found = 3 / math.log2(3) + 1 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert measure("ndcg@10", judged) == pytest.approx(found / ideal, abs=1e-12)
    assert measure("ndcg", judged) == pytest.approx(found / ideal, abs=1e-12)


def test_gains_are_the_same_for_grades_0_and_1() -> None:
    judged = {"d1": 0, "d2": 1, "d3": 0, "d4": 1, "d9": 1}
    assert measure("ndcg@10", judged) == measure("ndcg_exp@10", judged)


@pytest.mark.parametrize("metric", ["ndcg@10", "ndcg_exp@10", "ndcg", "recall@10", "map@3"])
def test_the_ideal_ranking_has_exactly_one(metric: str) -> None:
    assert measure(metric, {"d1": 0.7, "d2": 0.4, "d3": 0.1, "d4": 0}) == 1.0


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("recall@10", 2 / 3),
        ("recall@3", 1 / 3),
        ("precision@10", 2 / 10),  # by k, although there are but 4 documents
        ("precision@2", 1 / 2),
        ("mrr@10", 1 / 2),
        ("mrr@1", 0),
        ("mrr", 1 / 2),
        ("map@10", (1 / 2 + 2 / 4) / 3),  # by all relevant documents, found or not
        ("map@2", (1 / 2) / 3),
        ("map", (1 / 2 + 2 / 4) / 3),
        ("hit_rate@1", 0),
        ("hit_rate@2", 1),
    ],
)
def test_binary_metrics_by_hand(metric: str, expected: float) -> None:
    judged = {"d2": 1, "d4": 2, "d9": 1, "d3": 0, "d1": -1}
    assert measure(metric, judged) == pytest.approx(expected, abs=1e-12)


def test_what_is_relevant_can_be_said() -> None:
    judged = {"d1": 0.25, "d2": 0.5, "d3": 0.75}
    assert measure("mrr@10", judged) == 1
    assert measure("mrr@10", judged, relevant_from=0.5) == 1 / 2
    assert measure("recall@2", judged, relevant_from=0.5) == 1 / 2
    assert measure("mrr@10", judged, relevant_from=0.8) == 0
    # Gains are graded, whatever counts as relevant; what nobody judged never counts.
    assert measure("ndcg@10", judged, relevant_from=0.5) == measure("ndcg@10", judged)
    assert measure("precision@4", judged, relevant_from=-1) == 3 / 4


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("judged", [{}, {"d1": 0, "d2": -2}, {"d9": 1}])
def test_nothing_relevant_or_nothing_of_it_found_counts_0(
    metric: str, judged: dict[str, float]
) -> None:
    assert measure(metric, judged) == 0.0


@pytest.mark.parametrize("metric", ALL)
def test_queries_are_in_the_order_of_the_judgements(metric: str) -> None:
    run = {"unjudged": SCORES, "问": {"文一": 2.0, "文二": 1.0}, "empty": {}}
    qrels = {"empty": {"d1": 1}, "问": {"文一": 1}, "no ranking": {"d1": 1}}
    found = per_query(run, qrels, [metric])[metric]
    assert found.tolist() == [0.0, 0.1 if metric.startswith("precision") else 1.0, 0.0]


def test_a_value_does_not_depend_on_the_other_queries() -> None:
    # Bit by bit: a difference in the last one would count as a win.
    generator = np.random.default_rng(0)
    names = [f"d{number}" for number in range(60)]
    run = {
        f"q{length}": dict(zip(names, generator.random(length).tolist(), strict=False))
        for length in range(1, 60)
    }
    qrels = {
        query: {name: int(generator.integers(-1, 4)) for name in generator.choice(names, 20)}
        for query in run
    }
    metrics = [*ALL, "ndcg@20", "map@50"]
    together = per_query(run, qrels, metrics)
    for at, query in enumerate(qrels):
        alone = per_query({query: run[query]}, {query: qrels[query]}, metrics)
        assert {name: values[at] for name, values in together.items()} == {
            name: values[0] for name, values in alone.items()
        }


def test_ties_go_to_the_greater_id() -> None:
    assert order({"a": 1.0, "c": 1.0, "b": 1.0, "d": 2.0}) == ["d", "c", "b", "a"]
    assert order({"文": 0.0, "字": -0.0, "😀": 0.0, "z": 0.0}) == ["😀", "文", "字", "z"]
    assert order({}) == []


def test_scores_are_compared_in_single_precision() -> None:
    assert order({"a": 1.0 + 1e-9, "b": 1.0}) == ["b", "a"]
    assert order({"a": 1.0 + 1e-6, "b": 1.0}) == ["a", "b"]
    assert order({"a": 1e300, "b": math.inf, "c": -math.inf, "d": -1e300}) == ["b", "a", "d", "c"]


def test_a_score_that_is_nan_is_refused_by_name() -> None:
    run = {"q1": SCORES, "问": {"d1": 0.5, "文": math.nan}}
    with pytest.raises(ValueError, match="query '问': the score of document '文' is NaN"):
        per_query(run, {"q1": {"d1": 1}, "问": {"d1": 1}})


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_relevance_that_is_not_finite_is_refused_by_name(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"query 'q': the relevance of document 'd2' is {wrong}"):
        measure("ndcg@10", {"d1": 1, "d2": wrong})


def test_a_relevance_too_large_for_an_exponential_gain_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the relevance 5000 is too large .* use ndcg"):
        measure("ndcg_exp@10", {"d1": 5000})
    assert measure("ndcg@10", {"d1": 5000}) == 1
    assert measure("ndcg_exp@10", {"d1": 1000}) == 1


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no judgements"):
        per_query({"q": SCORES}, {})
    with pytest.raises(ValueError, match="the run has '1', the judgements have 'q1'"):
        per_query({"1": SCORES}, {"q1": {"d1": 1}})


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("NDCG@10", "ndcg@10"),
        ("ndgc@5", "ndcg@5"),
        ("recall", "recall@10"),  # says nothing without a cut-off
        ("ndcg@0", "ndcg@10"),
        ("ndcg@-3", "ndcg@10"),
        ("ndcg@010", "ndcg@10"),
        ("map@", "map@10"),
        ("map@x", "map@10"),
        ("hits@3", "hit_rate@3"),
    ],
)
def test_a_metric_that_does_not_exist_is_refused_with_what_was_meant(
    wrong: str, meant: str
) -> None:
    with pytest.raises(ValueError, match=f"no metric '{wrong}'; did you mean {meant}[?] metrics"):
        check_metrics(["ndcg@10", wrong])
    with pytest.raises(ValueError, match="no metric"):
        measure(wrong, {"d1": 1})


def test_the_valid_metrics_are_listed() -> None:
    check_metrics(ALL)
    with pytest.raises(ValueError) as error:
        check_metrics(["zzz"])
    assert all(f"{name}@k" in str(error.value) for name in METRICS)
    with pytest.raises(ValueError, match="no metric is given"):
        check_metrics([])
