"""Scored pairs of one query, wherever they stand, to one candidate group."""

import hashlib
from array import array
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
from datasets import Dataset

_SLICE = 256


def text_hash(*texts: str | None) -> int:
    """64 bits of the texts, the same in every process."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(b"\0" if text is None else text.encode() + b"\1")
    return int.from_bytes(digest.digest(), "little")


class Grouping:
    """Remembers which rows belong together: 8 bytes per row, whatever the length of its texts."""

    def __init__(self) -> None:
        self.keys = array("Q")

    def add_pair(self, group: dict[str, Any]) -> None:
        """The next row is a scored pair, to be united with those of the same query."""
        self.keys.append(text_hash(group["query"], group["prompt"]))

    def add_group(self) -> None:
        """The next row is a group already."""
        self.keys.append(0)

    def groups(self, rows: Dataset) -> Iterator[dict[str, Any]]:
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
            united: dict[tuple[str, str | None], dict[str, Any]] = {}
            for _, row in run:
                # Different queries of the same hash are next to impossible, and kept apart here.
                group = united.setdefault((row["query"], row["prompt"]), row)
                if group is not row:
                    for name in ("pos", "neg", "pos_scores", "neg_scores"):
                        group[name] += row[name]
            yield from united.values()


def _in_order(
    rows: Dataset, order: np.ndarray, place: np.ndarray
) -> Iterator[tuple[int, dict[str, Any]]]:
    for start in range(0, len(order), _SLICE):
        indices = order[start : start + _SLICE]
        columns = rows[indices.tolist()]
        for at, index in enumerate(indices):
            yield int(place[index]), {name: column[at] for name, column in columns.items()}
