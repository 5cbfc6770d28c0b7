"""What is known to answer a query, in numbers: a query may have any number of positives."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class KnownPositives:
    """The different positives of each query, 8 bytes each.

    Args:
        hashes: Of all positives [P].
        query_of: The number of the query that each belongs to [P], from 0.
    """

    def __init__(self, hashes: NDArray[np.int64], query_of: NDArray[np.int64]) -> None:
        order = np.lexsort((hashes, query_of))
        hashes, query_of = hashes[order], query_of[order]
        different = np.ones(len(hashes), dtype=bool)
        different[1:] = (hashes[1:] != hashes[:-1]) | (query_of[1:] != query_of[:-1])
        self.hashes = hashes[different]
        self.ends = np.cumsum(np.bincount(query_of[different]))

    def of(self, query: int) -> NDArray[np.int64]:
        """The hashes of a query's positives, sorted; they share one memory."""
        start = self.ends[query - 1] if query else 0
        return self.hashes[start : self.ends[query]]


class OtherPositives(Sequence[str]):
    """The texts that answer the query of a row as well; they are read when they are asked for.

    Args:
        pos_doc: The row's own positive, which is not one of them.
        hashes: Sorted, of all positives of the query, ``pos_doc`` too.
        read: Gives the texts, and may give some twice.
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

    __hash__ = None  # type: ignore[assignment]
