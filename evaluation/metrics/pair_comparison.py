"""Compare two models on the same judged pairs, by a statistic over all pairs."""

from collections.abc import Callable

import numpy as np

from evaluation.metrics.comparison import Comparison
from evaluation.metrics.pairs import Scores, Statistic, UndefinedMetric

TRIES = 100  # most draws per wanted one, where the statistic is undefined on many


def compare_statistic(
    statistic: Statistic,
    base: Scores,
    tuned: Scores,
    judged: Scores,
    resamples: int = 1_000,
    seed: int = 0,
) -> Comparison:
    """Compare two models' scores [N] of the same pairs by how they agree with ``judged`` [N].

    The interval is the percentile interval of a paired bootstrap over the pairs. The p-value
    (two-sided) is that of a paired randomisation test: if the models were equal, it would not
    matter which of them gave which score, so scores are swapped pair by pair, after each model's
    have been brought to mean 0 and deviation 1. Draws on which the statistic is not defined
    (judgements or scores all equal) are drawn again.

    Raises:
        UndefinedMetric: It is not defined for one of the models, or for nearly all draws.
    """
    random = np.random.default_rng(seed)
    count = len(judged)

    def resampled() -> float:
        at = random.integers(count, size=count)
        return statistic(tuned[at], judged[at]) - statistic(base[at], judged[at])

    first, second = ((x - x.mean()) / max(x.std(), 1e-12) for x in (base, tuned))

    def swapped() -> float:
        swap = random.random(count) < 0.5
        one, other = np.where(swap, second, first), np.where(swap, first, second)
        return statistic(other, judged) - statistic(one, judged)

    before, after = statistic(base, judged), statistic(tuned, judged)
    low, high = np.quantile(_draw(resampled, resamples), [0.025, 0.975])
    swaps = np.abs(_draw(swapped, resamples))
    extreme = int((swaps >= abs(after - before) - 1e-12).sum())
    p_value = (extreme + 1) / (resamples + 1)
    return Comparison(before, after, after - before, float(low), float(high), p_value)


def _draw(draw: Callable[[], float], wanted: int) -> Scores:
    """Results of draws on which the statistic is defined."""
    found: list[float] = []
    for _ in range(TRIES * wanted):
        try:
            found.append(draw())
        except UndefinedMetric:
            continue
        if len(found) == wanted:
            return np.array(found)
    raise UndefinedMetric("too few pairs differ in score or judgement to tell chance from more")
