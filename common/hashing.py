"""Hashes that are the same in every process: of texts, and of code whose results are cached."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def source_code(package: Path) -> Iterator[bytes]:
    """Yield the files of a package and its subpackages: a cache key that changes with the code."""
    for file in sorted(package.rglob("*.py")):
        yield file.read_bytes()


def file_digest(file: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def text_hash(*texts: str | None) -> int:
    """An unsigned 64-bit hash of texts; None and the empty text differ."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(b"\0" if text is None else text.encode() + b"\1")
    return int.from_bytes(digest.digest(), "little")


def text_hashes(texts: Iterable[str]) -> NDArray[np.int64]:
    """A signed 64-bit hash of each text [N], never 0, which pads tensors of them."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    found = np.frombuffer(b"".join(digests), dtype=">i8").astype(np.int64)
    found[found == 0] = 1
    return found
