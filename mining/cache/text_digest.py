"""Cache keys of texts: 128-bit digests of their content."""

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

# Letters: N texts or pairs.

Keys = NDArray[np.uint64]  # [N, 2]: 128 bits each
KEY_BYTES = 16


def text_keys(texts: Iterable[str]) -> Keys:
    """The keys of texts [N, 2]."""
    return _keys(text.encode() for text in texts)


def pair_keys(pairs: Iterable[tuple[str, str]]) -> Keys:
    """The keys of pairs of texts [N, 2]; ("ab", "c") and ("a", "bc") differ."""
    return _keys(f"{len(one)} {one}{other}".encode() for one, other in pairs)


def _keys(contents: Iterable[bytes]) -> Keys:
    joined = b"".join(hashlib.blake2b(each, digest_size=KEY_BYTES).digest() for each in contents)
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)


class KeyTable:
    """Looks keys up by binary search, with 24 bytes of memory per key.

    Args:
        keys: [N, 2]; of equal keys the first is found.
    """

    def __init__(self, keys: Keys) -> None:
        self.order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable
        self.first = keys[self.order, 0]
        self.second = keys[self.order, 1]

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The place [M] of each key [M, 2] among the N, -1 for missing ones."""
        places = np.full(len(keys), -1, dtype=np.int64)
        at = np.searchsorted(self.first, keys[:, 0])
        pending = np.arange(len(keys))
        while len(pending):
            # Keys with equal first halves are neighbours: go on to the next of them.
            pending = pending[at[pending] < len(self.first)]
            pending = pending[self.first[at[pending]] == keys[pending, 0]]
            found = self.second[at[pending]] == keys[pending, 1]
            places[pending[found]] = self.order[at[pending[found]]]
            pending = pending[~found]
            at[pending] += 1
        return places


def combined(parts: Sequence[str]) -> str:
    """One digest of several strings."""
    return hashlib.blake2b(json.dumps(list(parts)).encode(), digest_size=16).hexdigest()
