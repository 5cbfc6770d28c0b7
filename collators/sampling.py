"""Sample the candidates of a training group as a pure function of (seed, epoch, row).

No counter and no global generator is involved, so that a resumed run, another number of dataloader
workers or a second look at the same row draws the same candidates.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Item = TypeVar("Item")

# Defaults of a recipe's train_group_size and seed.
GROUP_SIZE, SEED = 8, 42


def generator(seed: int, row: dict[str, Any]) -> np.random.Generator:
    """The random numbers of one row in one epoch (``row["epoch"]`` and ``row["row"]``)."""
    return np.random.default_rng((seed, row["epoch"], row["row"]))


def draw(items: Sequence[Item], count: int, random: np.random.Generator) -> list[Item]:
    """Up to ``count`` of ``items`` without replacement, in random order."""
    chosen = random.permutation(len(items))[:count]
    return [items[index] for index in chosen]


def draw_group(row: dict[str, Any], size: int, seed: int) -> list[tuple[str, float]]:
    """Up to ``size`` candidates of a ``CandidateGroup`` with their relevances, a positive first.

    The relevances of a ``graded`` group are its scores, and the candidates after the first are
    drawn from all others. Otherwise relevances are 1 and 0, and the candidates after the first are
    drawn from ``neg``. A text that the group has more than once is one candidate, with the highest
    of its relevances: a positive is never its own negative.

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


def pad_groups(
    queries: Sequence[str], groups: Sequence[Sequence[tuple[str, float]]]
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Join the P candidates of G queries, and pad their relevances to the C of the largest group.

    Returns:
        ``relevances`` float [G, C], 0 for padding, and ``mask`` bool [G, C], True for candidates;
        then the query and the document of each candidate, P each.
    """
    shape = len(groups), max(len(group) for group in groups)
    relevances, mask = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for at, group in enumerate(groups):
        relevances[at, : len(group)] = torch.tensor([relevance for _, relevance in group])
        mask[at, : len(group)] = True
    repeated = [query for query, group in zip(queries, groups, strict=True) for _ in group]
    documents = [document for group in groups for document, _ in group]
    return {"relevances": relevances, "mask": mask}, repeated, documents
