"""Batches for the rerankers that compare the candidates of one query."""

from typing import Any

import torch

from collators.pairs import PairCollator

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


class GroupCollator(PairCollator):
    """``CandidateGroup`` rows to one batch of groups.

    The batch of G rows with P candidates in all, at most C in a group, L tokens in a pair::

        relevances  float [G, C]   0 where mask is False
        mask        bool  [G, C]   True for candidates; P of them
        texts       dict           the model's inputs, [P, L] each, group after group

    Each group holds one positive and up to ``train_group_size - 1`` other candidates, drawn anew
    in each epoch. Settings as in ``PairCollator``.
    """

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch; sizes follow the rows given."""
        groups = [self.candidates(row) for row in rows]
        shape = len(groups), max(len(group) for group in groups)
        relevances, mask = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        for at, group in enumerate(groups):
            relevances[at, : len(group)] = torch.tensor([relevance for _, relevance in group])
            mask[at, : len(group)] = True
        queries = [
            self.query_text(row) for row, group in zip(rows, groups, strict=True) for _ in group
        ]
        documents = [document for group in groups for document, _ in group]
        return {"relevances": relevances, "mask": mask, "texts": self.encode(queries, documents)}
