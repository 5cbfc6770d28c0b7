"""Our metrics as those of the ``evaluate`` library."""

import math
from typing import Any

import evaluate
import numpy as np
import pytest

from evaluation.metrics.hub_metrics import STATISTICS, PairMetric, RankingMetric
from evaluation.metrics.ranking import METRICS, UNCUT, per_query

NAMES = [*(f"{name}@10" for name in METRICS), *UNCUT]
FOUND: list[dict[str, Any]] = [
    {"documents": ["d1", "文", "d2"], "scores": [0.1, 0.9, 0.5]},
    {"documents": ["d1", "文"], "scores": [0.5, 0.5]},
    {"documents": [], "scores": []},
]
JUDGED: list[dict[str, Any]] = [
    {"documents": ["文", "d1"], "relevances": [0.5, 1]},
    {"documents": ["d1", "d7"], "relevances": [1, 0]},
    {"documents": ["d7"], "relevances": [2.0]},
]


def expected(relevant_from: float | None = None) -> dict[str, float]:
    run = {
        str(at): dict(zip(found["documents"], found["scores"], strict=True))
        for at, found in enumerate(FOUND)
    }
    qrels = {
        str(at): dict(zip(judged["documents"], judged["relevances"], strict=True))
        for at, judged in enumerate(JUDGED)
    }
    values = per_query(run, qrels, NAMES, relevant_from)
    return {name: float(value.mean()) for name, value in values.items()}


def test_batches_and_single_queries_add_up() -> None:
    combined = evaluate.combine([RankingMetric(name) for name in NAMES])
    combined.add_batch(predictions=FOUND[:2], references=JUDGED[:2])
    combined.add(prediction=FOUND[2], reference=JUDGED[2])
    assert combined.compute() == expected()
    # Nothing of it is left for the next.
    only = combined.compute(predictions=FOUND[:1], references=JUDGED[:1])
    assert only["mrr@10"] == 1


def test_the_docstring_says_what_comes_out() -> None:
    both = evaluate.combine([RankingMetric("ndcg@10"), RankingMetric("mrr@10")])
    both.add_batch(
        predictions=[{"documents": ["d1", "d2"], "scores": [0.9, 0.4]}],
        references=[{"documents": ["d2"], "relevances": [1.0]}],
    )
    assert both.compute() == {"ndcg@10": pytest.approx(1 / math.log2(3)), "mrr@10": 0.5}


def test_options_are_taken() -> None:
    metric = RankingMetric("mrr@10", relevant_from=1, keep_in_memory=True)
    found = metric.compute(predictions=FOUND, references=JUDGED)
    assert found == {"mrr@10": expected(relevant_from=1)["mrr@10"]}
    assert found != {"mrr@10": expected()["mrr@10"]}


def test_metrics_of_pairs() -> None:
    scores, judged = np.array([0.1, 0.7, 0.6, 0.9]), np.array([0.0, 0.0, 1.0, 1.0])
    combined = evaluate.combine([PairMetric(name) for name in STATISTICS])
    assert combined.compute(predictions=scores, references=judged) == {
        name: statistic(scores, judged) for name, statistic in STATISTICS.items()
    }


@pytest.mark.parametrize(
    ("found", "judged", "message"),
    [
        (
            {"documents": ["文"], "scores": [math.nan]},
            JUDGED[0],
            "query '0': .* document '文' is NaN",
        ),
        ({"documents": ["a"], "scores": [1, 2]}, JUDGED[0], "query number 0: .* as many scores"),
        (
            {"documents": ["a", "a"], "scores": [1, 2]},
            JUDGED[0],
            "the document 'a' is listed twice",
        ),
        (FOUND[0], {"documents": ["a"], "relevances": []}, "as many relevances as documents"),
        (FOUND[0], {"documents": ["a"], "relevances": [math.inf]}, "query '0': the relevance of"),
        ({"documents": [1], "scores": [1]}, JUDGED[0], "Expected format"),
    ],
)
def test_bad_input_is_refused(found: dict[str, Any], judged: dict[str, Any], message: str) -> None:
    metric = RankingMetric("ndcg@10", keep_in_memory=True)
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=[found], references=[judged])


def test_a_metric_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no metric 'NDCG@10'; did you mean ndcg@10"):
        RankingMetric("NDCG@10")
    with pytest.raises(ValueError, match="no metric 'kendall' of pairs, only spearman, pearson"):
        PairMetric("kendall")


def test_constant_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="all 2 scores are 1"):
        PairMetric("spearman").compute(predictions=[1.0, 1.0], references=[0.0, 1.0])
