"""View candidate groups together with what other rows of their queries judge."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from common.hashing import text_hashes
from loaders.in_place import RowsInPlace
from loaders.shapes.positive_pairs import query_hashes

_SLICE = 256
_NONE: NDArray[np.int64] = np.empty(0, dtype=np.int64)


class JudgedGroups:
    """Candidate groups that know which documents any row judges for their query.

    ``judged`` is added: the hashes of all documents in the rows of a query that has several rows.
    A document drawn from other queries has the relevance 0 only if it is not among them.

    Args:
        groups: Rows of the shape ``candidate_group``.
    """

    def __init__(self, groups: Dataset | RowsInPlace) -> None:
        self.groups = groups
        _, self.query_of, counts = np.unique(
            query_hashes(groups), return_inverse=True, return_counts=True
        )
        repeated = np.flatnonzero(counts[self.query_of] > 1)
        found: dict[int, list[NDArray[np.int64]]] = {}
        for at, texts in zip(repeated, _documents(groups, repeated), strict=True):
            found.setdefault(int(self.query_of[at]), []).append(text_hashes(texts))
        self.judged = {query: np.unique(np.concatenate(hashes)) for query, hashes in found.items()}

    def __len__(self) -> int:
        return len(self.query_of)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row at ``index``, which may count from the end."""
        judged = self.judged.get(int(self.query_of[index]), _NONE)
        return {**self.groups[index], "judged": judged}


def _documents(groups: Dataset | RowsInPlace, rows: NDArray[np.int64]) -> Iterator[list[str]]:
    """The texts of each of the rows."""
    if isinstance(groups, RowsInPlace):
        yield from (group["pos"] + group["neg"] for group in (groups[int(at)] for at in rows))
    else:
        for batch in groups.select(rows).iter(batch_size=_SLICE):
            yield from (pos + neg for pos, neg in zip(batch["pos"], batch["neg"], strict=True))
