"""Tell the splits of a folder by file names, and choose the one to read."""

import logging
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import TypeVar

from datasets.data_files import NON_WORDS_CHARS, SPLIT_KEYWORDS

T = TypeVar("T")

logger = logging.getLogger(__name__)

TRAIN = "train"
# Chinese is written without spaces: these count wherever they stand in a name.
_CHINESE = {"train": ["训练集"], "validation": ["验证集", "开发集"], "test": ["测试集"]}
# The keywords of datasets: train, training; dev, val, ...; test, ...; matched as whole words.
_WORDS = {str(split): [*words, *_CHINESE[str(split)]] for split, words in SPLIT_KEYWORDS.items()}
_HELD_OUT = [name for name in _WORDS if name != TRAIN]
_KEYWORDS = {
    name: re.compile(
        rf"(?:^|[{NON_WORDS_CHARS}])(?:{'|'.join(words)})(?:[{NON_WORDS_CHARS}]|$)"
        rf"|{'|'.join(_CHINESE[name])}"
    )
    for name, words in _WORDS.items()
}
# data/NAME-00000-of-00001.parquet, as push_to_hub writes: NAME is the split, whatever it is.
_SHARD = re.compile(r"(?:.*/)?data/([\w.]+)-\d{5}-of-\d{5}[^/]*")


def canonical_name(split: str) -> str:
    """The canonical name: ``validation`` for ``dev``, ``test`` for ``eval``; others unchanged."""
    word = split.strip().lower()
    return next((name for name, words in _WORDS.items() if word in words), split)


def split_of(path: PurePath) -> str:
    """The split that the parts of a relative path name; empty if they name none.

    A path that names both train and test is for testing: test rows must not be trained on.
    """
    shard = _SHARD.fullmatch(path.as_posix())
    parts = [part.lower() for part in path.parts]
    for name in [*reversed(_HELD_OUT), TRAIN]:
        if any(_KEYWORDS[name].search(part) for part in parts):
            return name
    return shard[1] if shard else ""


def choose_split(
    spec: str, found: Iterable[tuple[str, T]], wanted: str | None, evaluates: bool
) -> list[T]:
    """Choose the files of a folder or data set to read.

    If no split is wanted, all files are read, provided that all are for training or of no split.

    Args:
        spec: The folder or data set, as the user named it.
        found: The split (or "") and the file, of each file.
        wanted: The split to read, by its own or its canonical name; None: none is named.
        evaluates: The rows are not trained on: if there is only one split, it is read.

    Raises:
        ValueError: If there is no such split, or one has to be named; it lists the splits.
    """
    files: dict[str, list[T]] = {}
    for split, item in found:
        files.setdefault(split, []).append(item)
    listed = ", ".join(split or "files of no split" for split in files)
    if wanted is not None:
        canonical = {canonical_name(split): split for split in files if split}
        name = wanted if wanted in files else canonical.get(canonical_name(wanted), "")
        if name:
            if len(files) > 1:
                logger.info("%s: reading split %s (available: %s)", spec, name, listed)
            return files[name]
        there = f"there are {listed}" if any(files) else "it has no splits; leave split out"
        raise ValueError(f"{spec}: there is no split {wanted!r}; {there}")
    if set(files) <= {"", TRAIN}:
        return [item for _, item in found]
    if len(files) == 1:
        ((split, items),) = files.items()
        if evaluates or canonical_name(split) not in _HELD_OUT:
            return items
        raise ValueError(
            f"{spec}: it has only the split {split}, which has to be named to be trained on: "
            f"{spec}@{split}, or split: {split}"
        )
    example = TRAIN if TRAIN in files else next(filter(None, files))
    raise ValueError(
        f"{spec}: it has several splits, and none is chosen: {listed}; name one: "
        f"{spec}@{example}, or split: {example}"
    )
