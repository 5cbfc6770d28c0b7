"""The positives of each query as hashes: a query may have any number of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Letters: P positives of all queries.


class KnownPositives:
    """The distinct positives of each query, 8 bytes each.

    Args:
        hashes: ``text_hashes`` of all positives [P].
        query_of: The number of each positive's query [P], from 0.
    """

    def __init__(self, hashes: NDArray[np.int64], query_of: NDArray[np.int64]) -> None:
        order = np.lexsort((hashes, query_of))
        hashes, query_of = hashes[order], query_of[order]
        distinct = np.ones(len(hashes), dtype=bool)
        distinct[1:] = (hashes[1:] != hashes[:-1]) | (query_of[1:] != query_of[:-1])
        self.hashes = hashes[distinct]
        self.ends = np.cumsum(np.bincount(query_of[distinct]))

    def of(self, query: int) -> NDArray[np.int64]:
        """The sorted hashes of a query's positives, a view of one shared array."""
        start = self.ends[query - 1] if query else 0
        return self.hashes[start : self.ends[query]]


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

    __hash__ = None  # type: ignore[assignment]
