"""View candidate groups as pairs of a query and one positive."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from common.hashing import text_hash, text_hashes
from loaders.in_place import RowsInPlace

# Letters: G groups, P positives of all groups, which are the rows of the view.

_SLICE = 1000


class PositivePairs:
    """One row per positive of each group. Texts are not copied; memory holds only numbers.

    A row has ``query``, ``pos_doc``, ``negatives`` (the group's), ``other_positives`` (all other
    positives of the same query text, in this group and elsewhere; see ``OtherPositives``) and
    ``prompt``. Reading a row takes the same time however many positives its query has. A group
    without positives gives no row.

    Args:
        groups: Rows of the shape ``candidate_group``.
    """

    def __init__(self, groups: Dataset | RowsInPlace) -> None:
        self.groups = groups
        queries = query_hashes(groups)
        counts, hashes = _positives(groups)
        # Arrow's cells are converted one by one: a row needs one positive of perhaps thousands.
        self._cells = groups.with_format("arrow") if isinstance(groups, Dataset) else None
        # Row i is positive `position[i]` of group `group_of[i]`.
        self.group_of = np.repeat(np.arange(len(counts)), counts)
        begins = np.cumsum(counts) - counts
        self.position = np.arange(len(self.group_of)) - begins[self.group_of]
        # Groups with query number q are `by_query[query_begins[q] : query_begins[q + 1]]`.
        _, self.query_of, numbers = np.unique(queries, return_inverse=True, return_counts=True)
        self.by_query = np.argsort(self.query_of, kind="stable")
        self.query_begins = np.concatenate([[0], np.cumsum(numbers)])
        # The distinct positives of query q are `hashes[hash_begins[q] : hash_begins[q + 1]]`.
        query_of = self.query_of[self.group_of]  # [P]
        order = np.lexsort((hashes, query_of))
        hashes, query_of = hashes[order], query_of[order]
        distinct = np.ones(len(hashes), dtype=bool)
        distinct[1:] = (hashes[1:] != hashes[:-1]) | (query_of[1:] != query_of[:-1])
        self.hashes = hashes[distinct]
        numbers = np.bincount(query_of[distinct], minlength=len(numbers))
        self.hash_begins = np.concatenate([[0], np.cumsum(numbers)])
        self.without_positives = int((counts == 0).sum())

    def __len__(self) -> int:
        return len(self.group_of)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row at ``index``, which may count from the end."""
        at, position = int(self.group_of[index]), int(self.position[index])
        if self._cells is None:
            group = self.groups[at]
            query, pos_doc = group["query"], group["pos"][position]
            negatives, prompt = group["neg"], group["prompt"]
        else:
            table = self._cells[at]
            cells = {name: table.column(name)[0] for name in ("query", "pos", "neg", "prompt")}
            pos_doc = cells["pos"].values[position].as_py()
            query, negatives, prompt = (cells[name].as_py() for name in ("query", "neg", "prompt"))
        query_of = self.query_of[at]
        hashes = self.hashes[self.hash_begins[query_of] : self.hash_begins[query_of + 1]]
        return {
            "query": query,
            "pos_doc": pos_doc,
            "negatives": negatives,
            "other_positives": OtherPositives(pos_doc, hashes, partial(self._positives, at)),
            "prompt": prompt,
        }

    def _positives(self, at: int) -> Iterator[str]:
        """All positives of the query of a group, the group's own first."""
        query = self.query_of[at]
        same = self.by_query[self.query_begins[query] : self.query_begins[query + 1]].tolist()
        for place in [at, *(other for other in same if other != at)]:
            if self._cells is None:
                yield from self.groups[place]["pos"]
            else:
                yield from self._cells[place].column("pos")[0].as_py()


def query_hashes(groups: Dataset | RowsInPlace) -> NDArray[np.uint64]:
    """A hash of each group's query [G]."""
    if isinstance(groups, RowsInPlace):
        found: NDArray[np.uint64] = groups.places["query"]
        return found
    hashes = array("Q")
    for batch in groups.select_columns(["query"]).iter(batch_size=_SLICE):
        hashes.extend(map(text_hash, batch["query"]))
    return np.array(hashes, dtype=np.uint64)


def _positives(
    groups: Dataset | RowsInPlace,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each group's number of positives [G]; the hashes of all positives [P]."""
    if isinstance(groups, RowsInPlace):
        return groups.places["count"].astype(np.int64), groups.positive_hashes()
    lengths: list[int] = []
    hashes = [np.empty(0, dtype=np.int64)]
    for batch in groups.select_columns(["pos"]).iter(batch_size=_SLICE):
        lengths += [len(pos) for pos in batch["pos"]]
        hashes.append(text_hashes(text for pos in batch["pos"] for text in pos))
    return np.array(lengths, dtype=np.int64), np.concatenate(hashes)


class OtherPositives(Sequence[str]):
    """The other positives of a row's query; their texts are read only when asked for.

    Args:
        pos_doc: The row's own positive, which is left out.
        hashes: Sorted hashes of all positives of the query, including ``pos_doc``.
        read: Yields their texts, perhaps some of them twice.
    """

    def __init__(
        self, pos_doc: str, hashes: NDArray[np.int64], read: Callable[[], Iterator[str]]
    ) -> None:
        self.pos_doc = pos_doc
        self.hashes = hashes
        self.read = read

    def __len__(self) -> int:
        return len(self.hashes) - 1

    def __iter__(self) -> Iterator[str]:
        return (text for text in dict.fromkeys(self.read()) if text != self.pos_doc)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))
