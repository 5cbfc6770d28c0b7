"""Cache keys of texts: 128-bit digests of their content."""

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.prompts import prompt_of

# Letters: N texts or pairs.

Keys = NDArray[np.uint64]  # [N, 2]: 128 bits each
KEY_BYTES = 16


def text_keys(texts: Iterable[str]) -> Keys:
    """The keys of texts [N, 2]; a prompt counts as such: some models leave it out of pooling."""
    prompted = ((text, prompt_of(text)) for text in texts)
    return _keys((f"{prompt}\0{text}" if prompt else text).encode() for text, prompt in prompted)


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
        joined = _joined(keys)
        self.order = np.argsort(joined, kind="stable")
        self.sorted = joined[self.order]

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The place [M] of each key [M, 2] among the N, -1 for missing ones."""
        asked = _joined(keys)
        at = np.searchsorted(self.sorted, asked)
        inside = np.flatnonzero(at < len(self.sorted))
        found = inside[self.sorted[at[inside]] == asked[inside]]
        places = np.full(len(keys), -1, dtype=np.int64)
        places[found] = self.order[at[found]]
        return places


def _joined(keys: Keys) -> NDArray[np.bytes_]:
    """Keys [N, 2] as N strings of bytes, which can be sorted."""
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}")[:, 0]


def combined_digest(parts: Sequence[str]) -> str:
    """One digest of several strings."""
    return hashlib.blake2b(json.dumps(list(parts)).encode(), digest_size=16).hexdigest()
