"""Unite the scored pairs of a query, wherever they stand in the files, into one candidate group."""

from array import array
from collections.abc import Iterator
from itertools import groupby

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from common.hashing import text_hash
from loaders.shapes.rows import CandidateGroup

_SLICE = 256


class Grouping:
    """Remembers which rows belong together: 8 bytes per row, whatever the length of its texts."""

    def __init__(self) -> None:
        self.keys = array("Q")

    def add_pair(self, group: CandidateGroup) -> None:
        """The next row is a scored pair, to be united with those of the same query."""
        self.keys.append(text_hash(group.query, group.prompt))

    def add_group(self) -> None:
        """The next row is a group already."""
        self.keys.append(0)

    def groups(self, rows: Dataset) -> Iterator[CandidateGroup]:
        """Yield the groups in the order in which their queries first appear.

        Args:
            rows: All rows in the order in which they were added, scored pairs as groups of one.
        """
        keys = np.frombuffer(self.keys, dtype=np.uint64)
        place = np.arange(len(keys))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        place = np.where(keys == 0, place, first[inverse])
        order = np.argsort(place, kind="stable")
        for _, run in groupby(_in_order(rows, order, place), key=lambda item: item[0]):
            united: dict[tuple[str, str | None], CandidateGroup] = {}
            for _, row in run:
                # The key also tells apart different queries whose hashes are equal.
                group = united.setdefault((row.query, row.prompt), row)
                if group is not row:
                    _extend(group, row)
            yield from united.values()


def _extend(group: CandidateGroup, more: CandidateGroup) -> None:
    """Append the documents and scores of a graded group to those of another, in place."""
    for field in ("pos", "neg", "pos_scores", "neg_scores"):
        getattr(group, field).extend(getattr(more, field))


def _in_order(
    rows: Dataset, order: NDArray[np.int64], place: NDArray[np.int64]
) -> Iterator[tuple[int, CandidateGroup]]:
    for start in range(0, len(order), _SLICE):
        indices = order[start : start + _SLICE]
        columns = rows[indices.tolist()]
        for at, index in enumerate(indices):
            fields = {name: column[at] for name, column in columns.items()}
            yield int(place[index]), CandidateGroup(**fields)
