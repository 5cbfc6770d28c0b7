"""Hashes by which cached work is found again."""

from collections.abc import Iterator
from pathlib import Path


def source_code(package: Path) -> Iterator[bytes]:
    """Yield the files of a package and its subpackages: a cache key that changes with the code."""
    for file in sorted(package.rglob("*.py")):
        yield file.read_bytes()
