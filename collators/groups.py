"""Batches for the pairwise and listwise losses of a reranker."""

from typing import Any

from collators.pairs import PairCollator
from collators.sampling import pad_groups

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
        relevances, mask = pad_groups(groups)
        queries = [
            self.query_text(row) for row, group in zip(rows, groups, strict=True) for _ in group
        ]
        documents = [document for group in groups for document, _ in group]
        return {"relevances": relevances, "mask": mask, "texts": self.encode(queries, documents)}
