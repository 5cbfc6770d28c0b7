"""Interval and p-value: right on paper, as other libraries have them, and calibrated."""

import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from evaluation.metrics.comparison import bootstrap_interval, compare, randomisation_p_value

Array = NDArray[np.float64]
Metric = Callable[[NDArray[np.int64]], Array]  # ranks of the only relevant document to values

TRIALS = 2_000
RESAMPLES = 2_000


def test_a_constant_gain_has_no_width() -> None:
    base = np.array([0.25, 0.0, 0.75, 0.5])
    found = compare(base, base + 0.25)
    assert found[:5] == pytest.approx((0.375, 0.625, 0.25, 0.25, 0.25))
    assert found[6:] == (4, 0, 0)
    assert found.p_value == pytest.approx(2 / 2**4, abs=0.01)  # all signs +, or all -


def test_the_same_values_are_no_difference() -> None:
    base = np.array([0.25, 0.0, 0.75, 0.5])
    assert compare(base, base.copy()) == (0.375, 0.375, 0, 0, 0, 1, 0, 0, 4)


def test_wins_losses_and_ties() -> None:
    base = np.array([0.1, 0.5, 1.0, 0.3, 0.0])
    tuned = np.array([0.2, 0.4, 1.0, 0.3 + 1e-16, 1.0])
    found = compare(base, tuned)
    assert (found.wins, found.losses, found.ties) == (2, 1, 2)


def test_it_is_repeatable_and_antisymmetric() -> None:
    one, other = np.random.default_rng(2).random((2, 50))
    found, back = compare(one, other), compare(other, one)
    assert found == compare(one, other)
    assert found != compare(one, other, seed=1)
    assert back[2:5] == pytest.approx((-found.difference, -found.high, -found.low))
    assert back.p_value == pytest.approx(found.p_value, abs=0.02)
    assert (back.wins, back.losses) == (found.losses, found.wins)


def test_the_interval_is_that_of_student_for_normal_differences() -> None:
    base, noise = np.random.default_rng(1).normal(0.05, 0.3, size=(2, 400))
    found = compare(base, base + noise, resamples=40_000)
    spread = noise.std(ddof=1) / np.sqrt(400)
    low, high = stats.t.interval(0.95, 399, loc=noise.mean(), scale=spread)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03 * spread)


def test_the_interval_is_built_as_its_docstring_says() -> None:
    # All 6^6 resamples of 6 queries, in place of drawn ones.
    differences = np.array([0.0, 0.0, 0.1, 0.63, -0.37, 1.0])
    every = np.array([np.mean(drawn) for drawn in itertools.product(differences, repeat=6)])
    outer = stats.norm.cdf(np.sqrt(6 / 5) * stats.t.ppf(0.025, 5))
    half = np.subtract(*np.quantile(every, [1 - outer, outer])) / 2
    low, high = bootstrap_interval(differences, 200_000, np.random.default_rng(0))
    assert low == pytest.approx(differences.mean() - half, abs=0.01)
    assert high == pytest.approx(differences.mean() + half, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_is_scipys(seed: int) -> None:
    generator = np.random.default_rng(seed)
    differences = generator.choice([0, 0, 0.1, -0.1, 0.37, 1, -0.5], size=12)
    exact = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue  # all 2^12 signs
    found = randomisation_p_value(differences, 40_000, generator)
    assert found == pytest.approx(exact, abs=0.01)  # 4 standard deviations


def test_the_p_value_counts_the_observed_signs_in() -> None:
    # So many queries that no other signs are as far from 0: never 0.
    assert compare(np.zeros(200), np.ones(200), resamples=999).p_value == 1 / 1000


def test_several_comparisons_at_once_are_those_of_each() -> None:
    # What the tests of calibration below stand on.
    differences = np.random.default_rng(5).normal(size=(40, 3))
    low, high = bootstrap_interval(differences, 500, np.random.default_rng(0))
    p_values = randomisation_p_value(differences, 500, np.random.default_rng(0))
    for at, column in enumerate(differences.T):
        one = bootstrap_interval(column, 500, np.random.default_rng(0))
        assert one == pytest.approx((low[at], high[at]))
        assert randomisation_p_value(column, 500, np.random.default_rng(0)) == p_values[at]


def test_memory_does_not_grow_with_the_resamples() -> None:
    base, tuned = np.random.default_rng(3).random((2, 30_000))
    tracemalloc.start()
    compare(base, tuned, resamples=500)  # 120 MB for all draws at once
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


# Calibration. A query has a difficulty; a model puts its only relevant document at a rank. Two
# models that are equal put it at the same one for a part of the queries, else they draw anew.
def ndcg(ranks: NDArray[np.int64]) -> Array:
    return np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)


def mrr(ranks: NDArray[np.int64]) -> Array:
    return np.where(ranks <= 10, 1 / ranks, 0.0)


def hit_rate(ranks: NDArray[np.int64]) -> Array:
    return np.where(ranks <= 3, 1.0, 0.0)


def simulate(
    metric: Metric, shape: tuple[int, int], same: float, gain: float = 1.0, seed: int = 0
) -> tuple[Array, Array]:
    """Values of base and tuned, [Q, T] both; with ``gain`` above 1 tuned is the better one."""
    generator = np.random.default_rng(seed)
    easy = generator.beta(0.8, 1.2, size=shape).clip(0.01, 0.99)
    base = generator.geometric(easy)
    tuned = generator.geometric(easy ** (1 / gain))
    tuned = np.where(generator.random(shape) < same, base, tuned)
    return metric(base), metric(tuned)


EQUAL_MODELS = pytest.mark.parametrize(
    ("metric", "same"), [(ndcg, 0.5), (ndcg, 0.8), (mrr, 0.5), (hit_rate, 0.5)]
)
COUNTS = pytest.mark.parametrize("count", [50, 300])


@COUNTS
@EQUAL_MODELS
def test_equal_models_are_told_apart_in_5_percent(metric: Metric, same: float, count: int) -> None:
    base, tuned = simulate(metric, (count, TRIALS), same)
    ties = (base == tuned).mean()
    assert 0.6 < ties < 0.95  # as for real models
    low, high = bootstrap_interval(tuned - base, RESAMPLES, np.random.default_rng(1))
    assert 0.035 <= ((low > 0) | (high < 0)).mean() <= 0.065
    # On either side.
    assert 0.0125 <= (low > 0).mean() <= 0.0375
    assert 0.0125 <= (high < 0).mean() <= 0.0375


@COUNTS
@pytest.mark.parametrize("metric", [ndcg, mrr])
def test_p_values_of_equal_models_are_uniform(metric: Metric, count: int) -> None:
    base, tuned = simulate(metric, (count, TRIALS), same=0.5)
    p_values = randomisation_p_value(tuned - base, RESAMPLES, np.random.default_rng(1))
    # Kolmogorov and Smirnov: the distance of the distributions; 0.036 is passed in 1 % of cases.
    assert stats.kstest(p_values, "uniform").statistic < 0.036


@COUNTS
@EQUAL_MODELS
def test_p_values_of_equal_models_are_never_too_small(
    metric: Metric, same: float, count: int
) -> None:
    # Where few values are possible, p-values cannot be uniform, but must not be below that.
    base, tuned = simulate(metric, (count, TRIALS), same)
    p_values = randomisation_p_value(tuned - base, RESAMPLES, np.random.default_rng(1))
    for level in (0.01, 0.05, 0.1, 0.5):
        deviation = np.sqrt(level * (1 - level) / TRIALS)
        assert (p_values <= level).mean() <= level + 3 * deviation


@COUNTS
@pytest.mark.parametrize("metric", [ndcg, mrr, hit_rate])
def test_the_interval_holds_the_true_gain_in_95_percent(metric: Metric, count: int) -> None:
    base, tuned = simulate(metric, (1_000, 1_000), same=0.5, gain=1.5, seed=7)
    true = (tuned - base).mean()  # of a million queries
    assert true > 0.02
    base, tuned = simulate(metric, (count, TRIALS), same=0.5, gain=1.5)
    low, high = bootstrap_interval(tuned - base, RESAMPLES, np.random.default_rng(1))
    assert 0.935 <= ((low <= true) & (true <= high)).mean() <= 0.965


def test_a_clear_gain_is_seen() -> None:
    base, tuned = simulate(ndcg, (300, TRIALS), same=0.5, gain=2)
    low, _ = bootstrap_interval(tuned - base, RESAMPLES, np.random.default_rng(1))
    p_values = randomisation_p_value(tuned - base, RESAMPLES, np.random.default_rng(1))
    assert (low > 0).mean() > 0.95
    assert (p_values < 0.05).mean() > 0.95


@pytest.mark.parametrize(
    ("base", "tuned", "message"),
    [
        ([0.0, 1.0], [0.0, 1.0, 1.0], "on the same queries, got values of shape .2,. and .3,."),
        ([], [], "at least 2 queries, got 0"),
        ([0.5], [0.6], "at least 2 queries, got 1"),
        ([0.5, 0.5], [0.5, float("nan")], "fine-tuned: the value of query number 1 is nan"),
        ([float("inf"), 0.5], [0.5, 0.5], "base: the value of query number 0 is inf"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    base: list[float], tuned: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(np.array(base), np.array(tuned))
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        compare(np.zeros(3), np.ones(3), resamples=0)
