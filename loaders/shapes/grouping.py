"""Unite the scored pairs of a query, wherever they stand in the files, into one candidate group."""

from array import array
from collections.abc import Iterator
from itertools import groupby

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from loaders.shapes.rows import CandidateGroup

_SLICE = 256


def unite(rows: Dataset, keys: "array[int]") -> Iterator[CandidateGroup]:
    """Yield the groups in the order in which their queries first appear.

    Args:
        rows: Groups; a scored pair is a group of one document.
        keys: For each row a 64-bit hash of its query if it is a scored pair, which is united with
            those of the same query; 0 if it is a group already.
    """
    numbers = np.frombuffer(keys, dtype=np.uint64)
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    place = np.where(numbers == 0, np.arange(len(numbers)), first[inverse])
    order = np.argsort(place, kind="stable")
    for _, run in groupby(_in_order(rows, order, place), key=lambda item: item[0]):
        united: dict[tuple[str, str | None], CandidateGroup] = {}
        for _, row in run:
            # The key also tells apart different queries whose hashes are equal.
            group = united.setdefault((row.query, row.prompt), row)
            if group is not row:
                for field in ("pos", "neg", "pos_scores", "neg_scores"):
                    getattr(group, field).extend(getattr(row, field))
        yield from united.values()


def _in_order(
    rows: Dataset, order: NDArray[np.int64], place: NDArray[np.int64]
) -> Iterator[tuple[int, CandidateGroup]]:
    for start in range(0, len(order), _SLICE):
        indices = order[start : start + _SLICE]
        columns = rows[indices.tolist()]
        for at, index in enumerate(indices):
            fields = {name: column[at] for name, column in columns.items()}
            yield int(place[index]), CandidateGroup(**fields)
