"""Candidate groups seen as pairs of a query and one positive."""

from typing import Any, Self

import numpy as np
from datasets import Dataset

from loaders.grouping import text_hash
from loaders.in_place import RowsInPlace

_SLICE = 1000


class PositivePairs:
    """One row per positive of each group; nothing is copied, in memory are only numbers.

    A row has ``query``, ``pos_doc``, ``negatives`` (the group's), ``other_positives`` (all other
    positives of the same query text, in this group and elsewhere) and ``prompt``.

    Args:
        groups: Rows of the shape ``candidate_group``.
        positives: The same rows; only ``query`` and ``pos`` of them are used.
        counts: How many positives each group has.
        queries: A hash of each group's query.
    """

    def __init__(
        self,
        groups: Dataset | RowsInPlace,
        positives: Dataset | RowsInPlace,
        counts: np.ndarray,
        queries: np.ndarray,
    ) -> None:
        self.groups = groups
        self.positives = positives
        # Pair i is positive `position[i]` of group `group_of[i]`.
        self.group_of = np.repeat(np.arange(len(counts)), counts)
        begins = np.cumsum(counts) - counts
        self.position = np.arange(len(self.group_of)) - begins[self.group_of]
        # Groups with query number q are `by_query[query_begins[q] : query_begins[q + 1]]`.
        _, self.query_of, numbers = np.unique(queries, return_inverse=True, return_counts=True)
        self.by_query = np.argsort(self.query_of, kind="stable")
        self.query_begins = np.concatenate([[0], np.cumsum(numbers)])

    @classmethod
    def of(cls, groups: Dataset | RowsInPlace) -> Self:
        """The pairs of some groups."""
        if isinstance(groups, RowsInPlace):
            return cls(
                groups, groups, groups.places["count"].astype(np.int64), groups.places["query"]
            )
        positives = groups.select_columns(["query", "pos"])  # what lies in Arrow is read by column
        counts, hashes = [], []
        for batch in positives.iter(batch_size=_SLICE):
            counts += [len(pos) for pos in batch["pos"]]
            hashes += [text_hash(query) for query in batch["query"]]
        return cls(groups, positives, np.array(counts), np.array(hashes, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self.group_of)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row at ``index``, which may count from the end."""
        at = int(self.group_of[index])
        group = self.groups[at]
        pos_doc = group["pos"][self.position[index]]
        known = list(group["pos"])
        query = self.query_of[at]
        same = self.by_query[self.query_begins[query] : self.query_begins[query + 1]]
        if len(same) > 1:
            for other in map(self.positives.__getitem__, same.tolist()):
                known += other["pos"] if other["query"] == group["query"] else []
        return {
            "query": group["query"],
            "pos_doc": pos_doc,
            "negatives": group["neg"],
            "other_positives": [text for text in dict.fromkeys(known) if text != pos_doc],
            "prompt": group["prompt"],
        }
