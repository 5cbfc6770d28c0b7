"""View candidate groups together with what other rows of their queries judge."""

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from common.hashing import text_hash, text_hashes
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
        self.query_of, repeated = _repeated(groups)
        found: dict[int, list[NDArray[np.int64]]] = {}
        for at, group in zip(repeated, _read(groups, repeated), strict=True):
            hashes = text_hashes(group["pos"] + group["neg"])
            found.setdefault(int(self.query_of[at]), []).append(hashes)
        self.judged = {query: np.unique(np.concatenate(hashes)) for query, hashes in found.items()}

    def __len__(self) -> int:
        return len(self.query_of)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row at ``index``, which may count from the end."""
        judged = self.judged.get(int(self.query_of[index]), _NONE)
        return {**self.groups[index], "judged": judged}


def find_contradictions(groups: Dataset | RowsInPlace) -> list[int]:
    """The rows with a negative that another row of their query has as a positive.

    Relevances between 0 and 1 may differ from row to row: graded groups are left out.
    """
    _, repeated = _repeated(groups)
    known = array("Q")  # a hash of each positive with its query: 8 bytes, however long they are
    for group in _read(groups, repeated):
        known.extend(text_hash(group["query"], text) for text in group["pos"])
    positives, found = np.unique(np.array(known, dtype=np.uint64)), list[int]()
    for at, group in zip(repeated, _read(groups, repeated), strict=True):
        others = set(group["neg"]).difference(group["pos"])
        keys = np.array([text_hash(group["query"], text) for text in others], dtype=np.uint64)
        there = np.searchsorted(positives, keys) < np.searchsorted(positives, keys, "right")
        if not group["graded"] and there.any():
            found.append(int(at))
    return found


def _repeated(groups: Dataset | RowsInPlace) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of each row's query, and the rows whose query has several."""
    _, query_of, counts = np.unique(query_hashes(groups), return_inverse=True, return_counts=True)
    return query_of, np.flatnonzero(counts[query_of] > 1)


def _read(groups: Dataset | RowsInPlace, rows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """Each of the rows."""
    if isinstance(groups, RowsInPlace):
        yield from (groups[int(at)] for at in rows)
    else:
        for batch in groups.select(rows).iter(batch_size=_SLICE):
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))
