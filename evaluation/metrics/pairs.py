"""Metrics of scored pairs: correlation with graded judgements, or binary classification.

All take scores [N] and judgements [N] of the same pairs, and a larger score must mean a larger
judgement. Where a figure is not defined, because all scores or all judgements are equal, they
raise ``UndefinedMetric``; no figure is ever NaN.

Scores are similarities, or a reranker's logits: in float32 the sigmoids of logits above 17 are
all 1, and would tie. Only ``pearson``, which depends on the scale, is given the sigmoids.

A comparison computes each figure some 4,000 times: the functions of scikit-learn and SciPy, which
check a lot at every call, would take up to twenty times as long.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]  # one per pair: [N]
MetricValue = float | str  # a metric's value, or the reason why it has none
Statistic = Callable[[Scores, Scores], float]  # of scores and judgements


class UndefinedMetric(ValueError):
    """A metric has no value for these scores and judgements; the message says why."""


def spearman(scores: Scores, judged: Scores) -> float:
    """Return the correlation of the ranks, in [-1, 1]; equal values share their mean rank."""
    _check(scores, judged)
    return _correlation(_ranks(scores), _ranks(judged))


def pearson(scores: Scores, judged: Scores) -> float:
    """Return the linear correlation, in [-1, 1]."""
    _check(scores, judged)
    return _correlation(scores, judged)


def auc(scores: Scores, judged: Scores) -> float:
    """Return the area under the ROC curve, in [0, 1]; judgements are 0 or 1.

    It is the probability that a positive pair scores above a negative one; a tie counts half.
    """
    _, positives, negatives = _by_score(scores, judged)
    below = _summed(negatives)[:-1]
    in_order = (positives * (below + negatives / 2)).sum()
    return float(in_order / (positives.sum() * negatives.sum()))


def average_precision(scores: Scores, judged: Scores) -> float:
    """Return Σ (recall_n - recall_{n-1}) · precision_n over the thresholds; judged 0 or 1."""
    _, positives, negatives = _by_score(scores, judged)
    found, taken = positives[::-1].cumsum(), (positives + negatives)[::-1].cumsum()
    return float((positives[::-1] * found / taken).sum() / found[-1])


def accuracy(scores: Scores, judged: Scores) -> float:
    """Return the share of right decisions at the best threshold; judgements are 0 or 1."""
    return best_threshold(scores, judged)[1]


def best_threshold(scores: Scores, judged: Scores) -> tuple[float, float]:
    """Return the threshold that makes most decisions right, and the share of right ones.

    A pair is taken for positive if its score is at least the threshold. Tried are all thresholds
    that make a difference: each halfway between two neighbouring scores, one at the lowest score
    (all are positive), and infinity (none is). Of equally good ones the highest is chosen. It is
    chosen on the pairs it is judged by, so the accuracy is somewhat better than on new pairs.
    """
    values, positives, negatives = _by_score(scores, judged)
    # right[i]: decisions that are right if the i lowest values are refused.
    right = _summed(negatives) + judged.sum() - _summed(positives)
    best = len(values) - int(right[::-1].argmax())
    between = (values[1:] + values[:-1]) / 2
    thresholds = np.concatenate([values[:1], between, [np.inf]])
    return float(thresholds[best]), float(right[best] / len(scores))


GRADED: dict[str, Statistic] = {"spearman": spearman, "pearson": pearson}
BINARY: dict[str, Statistic] = {
    "auc": auc,
    "average_precision": average_precision,
    "accuracy": accuracy,
}


def pair_statistics(judged: Scores) -> dict[str, Statistic]:
    """Return by name what suits the judgements, the most telling first.

    Judgements that are all 0 or 1 are binary labels; others are grades.
    """
    return BINARY if np.isin(judged, (0, 1)).all() else GRADED


def metric_value(statistic: Statistic, scores: Scores, judged: Scores) -> MetricValue:
    """A statistic's value, or the reason why it has none."""
    try:
        return statistic(scores, judged)
    except UndefinedMetric as reason:
        return str(reason)


def _by_score(scores: Scores, judged: Scores) -> tuple[Scores, Scores, Scores]:
    """Each different score, rising, and how many positive and negative pairs have it."""
    _check_binary(scores, judged)
    values, group = np.unique(scores, return_inverse=True)
    positive, count = (np.bincount(group, weights).astype(np.float64) for weights in (judged, None))
    return values, positive, count - positive


def _ranks(values: Scores) -> Scores:
    """From 1; equal values share the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Scores = (counts.cumsum() - (counts - 1) / 2)[group]
    return means


def _correlation(scores: Scores, judged: Scores) -> float:
    one, other = _centred(scores), _centred(judged)
    return float(np.clip(one @ other, -1, 1))


def _centred(values: Scores) -> Scores:
    """With mean 0 and length 1."""
    values = values / np.abs(values).max()  # their squares can neither overflow nor vanish
    values = values - values.mean()
    length = np.linalg.norm(values)
    if length < 1e-13:
        raise UndefinedMetric("the scores differ by less than a float64 can tell")
    return values / length


def _summed(counts: NDArray[np.number]) -> Scores:
    """[0, c_1, c_1 + c_2, ...]."""
    return np.concatenate([[0.0], counts.cumsum()])


def _check(scores: Scores, judged: Scores) -> None:
    if scores.shape != judged.shape or scores.ndim != 1:
        raise ValueError(
            f"there must be one score for each judged pair, got scores of shape {scores.shape} "
            f"and judgements of shape {judged.shape}"
        )
    _check_varied("scores", scores)
    _check_varied("judgements", judged)


def _check_binary(scores: Scores, judged: Scores) -> None:
    _check(scores, judged)
    wrong = judged[~np.isin(judged, (0, 1))]
    if len(wrong):
        raise ValueError(
            f"a binary judgement is 0 or 1, got {wrong[0]:g}; for grades use spearman or pearson"
        )


def _check_varied(name: str, values: Scores) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ValueError(f"{name}: number {wrong[0]} is {values[wrong[0]]}; it must be finite")
    if len(values) < 2:
        raise UndefinedMetric(f"at least 2 pairs are needed, got {len(values)}")
    if values.min() == values.max():
        raise UndefinedMetric(f"all {len(values)} {name} are {values[0]:g}")
