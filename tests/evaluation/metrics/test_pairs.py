"""Metrics of scored pairs: on paper, against naive loops, and clear errors instead of NaN."""

import csv
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit
from sentence_transformers.sentence_transformer.evaluation import BinaryClassificationEvaluator
from sklearn.metrics import average_precision_score, roc_auc_score

from evaluation.measure import PairScores
from evaluation.metrics.pairs import (
    BINARY,
    GRADED,
    Statistic,
    UndefinedMetric,
    accuracy,
    auc,
    average_precision,
    best_threshold,
    metric_value,
    pair_statistics,
    pearson,
    spearman,
)

Array = NDArray[np.float64]

binary_pairs = st.lists(
    st.tuples(st.integers(-3, 3).map(lambda n: n / 4), st.integers(0, 1)), min_size=2, max_size=20
)


def arrays(*columns: list[float]) -> list[Array]:
    return [np.array(column, dtype=np.float64) for column in columns]


def test_correlations_by_hand() -> None:
    scores, judged = arrays([1, 2, 3, 10], [0, 0.5, 1, 0.25])
    # Ranks 1 2 3 4 against 1 3 4 2: 1 - 6 Σ d² / (n³ - n).
    assert spearman(scores, judged) == pytest.approx(1 - 6 * (0 + 1 + 1 + 4) / 60)
    a, b = scores - scores.mean(), judged - judged.mean()
    assert pearson(scores, judged) == pytest.approx(a @ b / math.sqrt((a @ a) * (b @ b)))


def test_equal_values_share_their_rank() -> None:
    scores, judged = arrays([0.1, 0.1, 0.3], [0, 1, 1])
    a, b = arrays([1.5, 1.5, 3], [1, 2.5, 2.5])
    assert spearman(scores, judged) == pytest.approx(np.corrcoef(a, b)[0, 1])


@given(
    scores=st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=20),
    scale=st.sampled_from([1e-300, 1.0, 1e300]),
    data=st.data(),
)
def test_correlations_are_scipys(scores: list[float], scale: float, data: st.DataObject) -> None:
    grades = st.lists(st.integers(0, 4), min_size=len(scores), max_size=len(scores))
    found, judged = arrays(scores, [float(grade) for grade in data.draw(grades)])
    found = np.round(found, 3) * scale
    assume(np.ptp(found / scale) > 0 and np.ptp(judged) > 0)
    assert spearman(found, judged) == pytest.approx(stats.spearmanr(found, judged)[0], abs=1e-12)
    assert pearson(found, judged) == pytest.approx(
        stats.pearsonr(found / scale, judged)[0], abs=1e-9
    )


def test_scores_that_differ_by_rounding_have_no_correlation() -> None:
    scores, judged = arrays([1, 1 + 2e-16, 1], [0, 0.5, 1])
    with pytest.raises(UndefinedMetric, match="differ by less than a float64 can tell"):
        pearson(scores, judged)


@given(pairs=binary_pairs)
def test_auc_is_the_share_of_pairs_in_order_and_precisions_are_scikit_learns(
    pairs: list[tuple[float, int]],
) -> None:
    scores, judged = arrays(*zip(*pairs, strict=True))  # type: ignore[arg-type]
    assume(np.ptp(scores) > 0 and np.ptp(judged) > 0)
    wins = [
        (up > down) + (up == down) / 2
        for up, down in itertools.product(scores[judged == 1], scores[judged == 0])
    ]
    assert auc(scores, judged) == pytest.approx(np.mean(wins), abs=1e-12)
    theirs = average_precision_score(judged, scores)
    assert average_precision(scores, judged) == pytest.approx(theirs, abs=1e-12)


def test_average_precision_by_hand() -> None:
    scores, judged = arrays([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    assert average_precision(scores, judged) == pytest.approx((1 + 2 / 3) / 2)


@given(pairs=binary_pairs)
def test_the_best_threshold_is_the_best_of_all(pairs: list[tuple[float, int]]) -> None:
    scores, judged = arrays(*zip(*pairs, strict=True))  # type: ignore[arg-type]
    assume(np.ptp(scores) > 0 and np.ptp(judged) > 0)

    def right(threshold: float) -> float:
        return float(((scores >= threshold) == judged).mean())

    threshold, found = best_threshold(scores, judged)
    assert found == accuracy(scores, judged) == pytest.approx(right(threshold), abs=1e-12)
    assert found == pytest.approx(max(map(right, [*scores, math.inf])), abs=1e-12)
    # The highest of equally good ones.
    above = [*scores[scores > threshold], *([math.inf] if threshold < math.inf else [])]
    beyond = [score for score in above if (scores >= score).sum() < (scores >= threshold).sum()]
    assert all(right(score) < found - 1e-12 for score in beyond)


def test_the_threshold_lies_between_scores() -> None:
    assert best_threshold(*arrays([0.1, 0.3, 0.7, 0.9], [0, 0, 1, 1])) == (0.5, 1)
    # All are positive, none is.
    assert best_threshold(*arrays([0.9, 0.3, 0.8, 0.6], [0, 1, 1, 1])) == (0.3, 0.75)
    assert best_threshold(*arrays([0.9, 0.3, 0.8, 0.6], [0, 1, 0, 0])) == (math.inf, 0.75)


@pytest.mark.parametrize("seed", range(3))
def test_sentence_transformers_finds_the_same_accuracy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    judged = generator.integers(2, size=200).astype(np.float64)
    scores = judged + generator.normal(size=200)
    theirs, threshold = BinaryClassificationEvaluator.find_best_acc_and_threshold(
        scores, judged, high_score_more_similar=True
    )
    assert best_threshold(scores, judged) == pytest.approx((threshold, theirs), abs=1e-9)


def test_the_statistics_suit_the_judgements() -> None:
    assert pair_statistics(np.array([0.0, 1.0, 1.0])) is BINARY
    assert pair_statistics(np.array([0.0, 0.5, 1.0])) is GRADED
    assert pair_statistics(np.array([0.0, 0.5])) is GRADED
    assert pair_statistics(np.array([1.0, 5.0])) is GRADED
    assert (next(iter(BINARY)), next(iter(GRADED))) == ("auc", "spearman")


@pytest.mark.parametrize("statistic", [*BINARY.values(), *GRADED.values()])
def test_what_is_not_defined_is_refused(statistic: Statistic) -> None:
    varied = np.array([0.0, 1.0, 0.0])
    for scores, judged, message in [
        (np.array([0.0, np.nan, 1.0]), varied, "scores: number 1 is nan"),
        (varied, np.array([0.0, np.inf, 1.0]), "judgements: number 1 is inf"),
        (np.array([0.5]), np.array([1.0]), "at least 2 pairs are needed, got 1"),
        (np.array([]), np.array([]), "at least 2 pairs are needed, got 0"),
        (varied[:2], varied, "one score for each judged pair"),
    ]:
        with pytest.raises(ValueError, match=message):
            statistic(scores, judged)


@pytest.mark.parametrize("statistic", BINARY.values())
def test_grades_are_no_binary_labels(statistic: Statistic) -> None:
    with pytest.raises(ValueError, match=r"a binary judgement is 0 or 1, got 0.5; .* spearman"):
        statistic(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("statistic", [*BINARY.values(), *GRADED.values()])
def test_a_figure_without_a_value_is_its_reason(statistic: Statistic) -> None:
    varied = np.array([0.0, 1.0, 0.0])
    assert metric_value(statistic, varied, np.ones(3)) == "all 3 judgements are 1"
    assert metric_value(statistic, np.full(3, -2.0), varied) == "all 3 scores are -2"
    with pytest.raises(ValueError, match="number 1 is nan"):  # a mistake is no missing value
        metric_value(statistic, np.array([0.0, np.nan, 1.0]), varied)
    assert isinstance(metric_value(statistic, np.array([0.1, 0.9, 0.2]), varied), float)


@pytest.mark.parametrize("shift", [18, 51, 400, -51, -800])
def test_sure_logits_are_ordered_where_their_sigmoids_are_equal(shift: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(shift, 2, size=300)
    judged = (logits - shift + random.normal(0, 2, size=300) > 0).astype(np.float64)
    found = PairScores(logits, expit(logits)).metric_values(judged)
    assert found["auc"] == pytest.approx(roc_auc_score(judged, logits), abs=1e-12)
    theirs = average_precision_score(judged, logits)
    assert found["average_precision"] == pytest.approx(theirs, abs=1e-12)
    best, _ = BinaryClassificationEvaluator.find_best_acc_and_threshold(logits, judged, True)
    assert found["accuracy"] == pytest.approx(best, abs=1e-12)
    graded = PairScores(logits, expit(logits)).metric_values(logits + random.normal(0, 2, size=300))
    assert 0.5 < graded["spearman"] < 0.9  # type: ignore[operator]


def test_a_linear_correlation_is_that_of_what_users_see() -> None:
    logits, judged = arrays([-2, 0, 1, 5], [0, 0.5, 0.25, 1])
    found = PairScores(logits, expit(logits)).metric_values(judged)["pearson"]
    assert found == pytest.approx(np.corrcoef(1 / (1 + np.exp(-logits)), judged)[0, 1])


@pytest.mark.realdata
@pytest.mark.parametrize("language", ["en", "zh"])
def test_real_judgements(realdata: Callable[[str], Path], language: str) -> None:
    # The share of common characters tells something about similarity, in both languages.
    with realdata(f"stsb/stsb-{language}-dev.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    judged = np.array([float(row[2]) for row in rows])
    scores = np.array([overlap(row[0], row[1]) for row in rows])
    assert pair_statistics(judged) is GRADED
    assert 0.3 < spearman(scores, judged) < 0.9
    similar = (judged >= 3).astype(np.float64)
    assert auc(scores, similar) == pytest.approx(roc_auc_score(similar, scores), abs=1e-9)
    assert accuracy(scores, similar) > max(similar.mean(), 1 - similar.mean())


def overlap(one: str, other: str) -> float:
    first, second = ({text[at : at + 2] for at in range(len(text) - 1)} for text in (one, other))
    return len(first & second) / max(1, len(first | second))
