"""Batches for distillation: the candidates of a query with a teacher's scores."""

from dataclasses import dataclass
from typing import Any

from collators.groups import GroupCollator
from collators.sampling import GROUP_SIZE, SEED, draw_group, pad_groups
from collators.texts import EmbedderCollator

# Shapes: G groups (queries), C candidates of the largest group, P candidates of all groups.


def draw_taught(row: dict[str, Any], size: int, seed: int) -> list[tuple[str, float]]:
    """Up to ``size`` candidates of a group with the teacher's scores, a positive first.

    The others are drawn from all candidates of the group, positives too.
    """
    return draw_group({**row, "graded": True}, size, seed)


class RerankerDistillationCollator(GroupCollator):
    """``CandidateGroup`` rows to a batch as ``GroupCollator``'s, for a reranker.

    ``relevances`` [G, C] are the teacher's scores.
    """

    def candidates(self, row: dict[str, Any]) -> list[tuple[str, float]]:
        """The documents of a row that are trained on in this epoch, with the teacher's scores."""
        return draw_taught(row, self.train_group_size, self.seed)


@dataclass
class EmbedderDistillationCollator(EmbedderCollator):
    """``CandidateGroup`` rows to a batch for an embedder.

    The batch of G rows with P candidates in all and N different texts of at most L tokens::

        relevances  float [G, C]   the teacher's scores, 0 where mask is False
        mask        bool  [G, C]   True for candidates; P of them
        queries     int   [P]      index of each candidate's query among the N texts
        documents   int   [P]      index of each candidate among the N texts
        texts       dict           the model's inputs, [N, L] each

    Args:
        train_group_size: Candidates of a group, a positive first, drawn anew in each epoch.
        seed: The run's seed; see ``collators.sampling``.
    """

    train_group_size: int = GROUP_SIZE
    seed: int = SEED

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch; sizes follow the rows given."""
        groups = [draw_taught(row, self.train_group_size, self.seed) for row in rows]
        scores, mask = pad_groups(groups)
        texts, queries, documents = self.encode(
            [self.query_text(row) for row, group in zip(rows, groups, strict=True) for _ in group],
            [document for group in groups for document, _ in group],
        )
        return {
            "relevances": scores,
            "mask": mask,
            "queries": queries,
            "documents": documents,
            "texts": texts,
        }

    def documents_of(self, row: dict[str, Any]) -> list[str]:
        """The candidates drawn for a row in its epoch."""
        drawn = draw_taught(row, self.train_group_size, self.seed)
        return [document for document, _ in drawn]
