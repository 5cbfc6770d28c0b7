"""Hashes: of texts, to recognise them anywhere, and of source code, to key cached work."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def text_hashes(texts: Iterable[str]) -> NDArray[np.int64]:
    """64 bits of each text, the same in every process and never 0."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    found = np.frombuffer(b"".join(digests), dtype=">i8").astype(np.int64)
    found[found == 0] = 1
    return found


def source_code(package: Path) -> Iterator[bytes]:
    """Yield the files of a package and its subpackages: a cache key that changes with the code."""
    for file in sorted(package.rglob("*.py")):
        yield file.read_bytes()
