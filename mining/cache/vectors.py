"""Vectors on disk, found by the content they were made of.

A folder holds parts, each written by one process at a time: ``part-000.vectors``, rows of float32
one after the other, and ``part-000.keys``, which says whose they are, in blocks of a header and
keys. A block's vectors are on disk before its keys are begun. A process that is killed therefore
leaves at most one block without keys, or with keys that do not match their checksum: such a tail
is not read, and the next writer cuts it off.
"""

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mining.cache.text_digest import KEY_BYTES, Keys, KeyTable

# Letters: N vectors, H numbers of each.

Vectors = NDArray[np.float32]  # [N, H]
_COUNT, _CHECKSUM = 8, 16  # bytes of a block's header


@dataclass(frozen=True)
class Part:
    """What of a part's files is whole: ``keys`` [N, 2] of the first N rows of ``vectors``."""

    vectors: Path
    keys: Keys
    start: int  # place of its first vector among those of all parts
    end_of_keys: int  # bytes of the keys' file that are whole


class VectorCache:
    """Vectors of one kind. What is appended, here or elsewhere, is seen after ``refresh``.

    Left as a context, it gives back the part that it writes to; the end of the process does, too.

    Args:
        folder: For this kind alone: one model with one way of using it.
        width: H.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width
        self.exits = ExitStack()
        self.writer: _Writer | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.exits.close()
        self.writer = None

    def refresh(self) -> None:
        """Look at what is on disk now."""
        self.parts: list[Part] = []
        start = 0
        for keys in sorted(self.folder.glob("part-*.keys")):
            part = read_part(keys, self.width, start)
            self.parts.append(part)
            start += len(part.keys)
        found = [part.keys for part in self.parts]
        self.table = KeyTable(np.concatenate(found) if found else np.empty((0, 2), np.uint64))

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Where the vectors of keys [M, 2] are, -1 for those that are not there: [M]."""
        return self.table.find(keys)

    def take(self, places: NDArray[np.int64]) -> Vectors:
        """The vectors at places [M] that ``find`` gave: [M, H]."""
        taken = np.empty((len(places), self.width), dtype=np.float32)
        for part in self.parts:
            chosen = (places >= part.start) & (places < part.start + len(part.keys))
            if chosen.any():
                # Mapped for this call only: mapped pages count as the process's memory.
                shape = (len(part.keys), self.width)
                mapped = np.memmap(part.vectors, dtype=np.float32, mode="r", shape=shape)
                taken[chosen] = mapped[places[chosen] - part.start]
        return taken

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Add one block: it will be there whole, or not at all."""
        assert vectors.shape == (len(keys), self.width)
        if self.writer is None:
            self.writer = self._open_part()
        self.writer.write(keys, vectors)

    def _open_part(self) -> "_Writer":
        """The first part that no other process writes to."""
        for number in range(100_000):
            name = self.folder / f"part-{number:05}"
            lock = FileLock(name.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            self.exits.callback(lock.release)
            return _Writer(name, self.width)
        raise ValueError(f"{self.folder}: all parts are in use; remove its .lock files")


class _Writer:
    """Appends blocks to the two files of a part, after cutting off a torn tail."""

    def __init__(self, name: Path, width: int) -> None:
        self.keys, self.vectors = name.with_suffix(".keys"), name.with_suffix(".vectors")
        self.keys.touch()
        self.vectors.touch()
        whole = read_part(self.keys, width, 0)
        os.truncate(self.vectors, len(whole.keys) * width * 4)
        os.truncate(self.keys, whole.end_of_keys)

    def write(self, keys: Keys, vectors: Vectors) -> None:
        content = keys.astype("<u8").tobytes()
        header = len(keys).to_bytes(_COUNT, "little") + _checksum(content)
        for path, written in ((self.vectors, vectors.tobytes()), (self.keys, header + content)):
            with path.open("ab") as file:
                file.write(written)
                file.flush()
                os.fsync(file.fileno())


def read_part(path: Path, width: int, start: int) -> Part:
    """What is whole of a part.

    Args:
        path: The file of its keys; that of its vectors is beside it.
        width: H.
        start: Place of its first vector.
    """
    vectors = path.with_suffix(".vectors")
    available = vectors.stat().st_size // (4 * width) if vectors.exists() else 0
    content = path.read_bytes()
    blocks: list[bytes] = []
    count = end = 0
    while end + _COUNT + _CHECKSUM <= len(content):
        size = int.from_bytes(content[end : end + _COUNT], "little")
        begin = end + _COUNT + _CHECKSUM
        block = content[begin : begin + size * KEY_BYTES]
        torn = len(block) < size * KEY_BYTES or count + size > available
        if torn or _checksum(block) != content[end + _COUNT : begin]:
            break
        blocks.append(block)
        count, end = count + size, begin + len(block)
    keys = np.frombuffer(b"".join(blocks), dtype="<u8").reshape(-1, 2)
    return Part(vectors, keys, start, end)


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM).digest()
