"""Is one model better than another on the same queries, and how sure is that?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]  # one value of a metric per query: [Q]


class Difference(NamedTuple):
    """A mean difference; ``low`` to ``high`` is its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_difference(
    baseline: Values, tuned: Values, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Return the mean of ``tuned - baseline`` with its percentile bootstrap interval.

    Queries are drawn anew with replacement, each with the values of both models (a paired
    bootstrap): what makes a query hard for both does not blur the comparison. The seed makes
    the interval repeatable. Both arrays [Q] have the same queries in the same order.
    """
    differences = tuned - baseline
    generator = np.random.default_rng(seed)
    count = len(differences)
    means = [differences[generator.integers(count, size=count)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(differences.mean()), float(low), float(high))
