"""Record the length of each distinct text, in any unit."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_BATCH = 512

Count = Callable[[list[str]], list[int]]


def count_characters(texts: list[str]) -> list[int]:
    """The number of characters of each text."""
    return [len(text) for text in texts]


class TextLengths:
    """Lengths of distinct texts, by key.

    Args:
        count: Gives the lengths of several texts.
    """

    def __init__(self, count: Count) -> None:
        self.count = count
        self.known: dict[int, int] = {}
        self.waiting: dict[int, str] = {}

    def add(self, key: int, text: str) -> None:
        """Add a text, unless its key is known."""
        if key not in self.known and key not in self.waiting:
            self.waiting[key] = text
            if len(self.waiting) == _BATCH:
                self._count()

    def _count(self) -> None:
        if self.waiting:
            lengths = self.count(list(self.waiting.values()))
            self.known.update(zip(self.waiting, lengths, strict=True))
            self.waiting = {}

    def all(self) -> NDArray[np.int64]:
        """The length of each distinct text."""
        self._count()
        return np.fromiter(self.known.values(), dtype=np.int64, count=len(self.known))

    def of(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The length of the text of each key."""
        lengths = self.all()
        known = np.fromiter(self.known, dtype=np.uint64, count=len(self.known))
        order = np.argsort(known)
        found: NDArray[np.int64] = lengths[order[np.searchsorted(known, keys, sorter=order)]]
        return found
