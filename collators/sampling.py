"""Draw the candidates of a training group: a function of (seed, epoch, row) and nothing else.

No counter and no global generator takes part, so that a resumed run, another number of
dataloader workers or a second look at the same row draws the same candidates.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")


def generator(seed: int, row: dict[str, Any]) -> np.random.Generator:
    """The random numbers of one row in one epoch (``row["epoch"]`` and ``row["row"]``)."""
    return np.random.default_rng((seed, row["epoch"], row["row"]))


def draw(items: Sequence[Item], count: int, random: np.random.Generator) -> list[Item]:
    """``count`` different ones of ``items``, all of them if there are no more, in random order."""
    chosen = random.permutation(len(items))[:count]
    return [items[index] for index in chosen]


def draw_group(row: dict[str, Any], size: int, seed: int) -> list[tuple[str, float]]:
    """Up to ``size`` candidates of a ``CandidateGroup`` with their relevances, a positive first.

    A group that is ``graded`` has its scores for relevances, and the candidates beside the first
    come from all others. Otherwise relevances are 1 and 0, and they come from ``neg``. A text that
    the group has more than once is one candidate, with the highest of its relevances: a positive
    is never its own negative.

    Args:
        row: A group with ``row`` and ``epoch``.
        size: Candidates wanted. A smaller group is taken whole.
        seed: The run's seed.
    """
    random = generator(seed, row)
    judged = [(text, 1.0) for text in row["pos"]] + [(text, 0.0) for text in row["neg"]]
    if row.get("graded"):
        scores = (row["pos_scores"] or []) + (row["neg_scores"] or [])
        judged = list(zip(row["pos"] + row["neg"], scores, strict=True))
    relevances: dict[str, float] = {}
    for text, relevance in judged:
        relevances[text] = max(relevance, relevances.get(text, relevance))
    known = set(row["pos"])
    positives = [(text, rel) for text, rel in relevances.items() if text in known]
    negatives = [(text, rel) for text, rel in relevances.items() if text not in known]
    order = draw(positives, len(positives), random)
    first, others = order[:1], order[1:]
    rest = [*others, *negatives] if row.get("graded") else negatives
    return first + draw(rest, size - len(first), random)
