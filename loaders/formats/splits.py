"""The splits of a folder: which of its files are for training, and which for testing."""

import logging
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import TypeVar

from datasets.data_files import NON_WORDS_CHARS, SPLIT_KEYWORDS

T = TypeVar("T")

logger = logging.getLogger(__name__)

TRAIN = "train"
# What datasets knows splits by, with words at both sides: train, training; dev, val, ...; test, ...
_WORDS = {str(split): words for split, words in SPLIT_KEYWORDS.items()}
_HELD_OUT = [name for name in _WORDS if name != TRAIN]
_KEYWORDS = {
    name: re.compile(rf"(?:^|[{NON_WORDS_CHARS}])(?:{'|'.join(words)})(?:[{NON_WORDS_CHARS}]|$)")
    for name, words in _WORDS.items()
}
# data/NAME-00000-of-00001.parquet, as push_to_hub writes it: any name is a split.
_SHARD = re.compile(r"(?:.*/)?data/([\w.]+)-\d{5}-of-\d{5}[^/]*")


def usual_name(split: str) -> str:
    """``validation`` for ``dev``, ``test`` for ``eval``, and so on; other names as they are."""
    word = split.strip().lower()
    return next((name for name, words in _WORDS.items() if word in words), split)


def split_of(path: PurePath) -> str:
    """The split that the names in a relative path tell; empty if they tell none.

    A file of which one part says train and another says test is for testing.
    """
    shard = _SHARD.fullmatch(path.as_posix())
    parts = [part.lower() for part in path.parts]
    for name in [*reversed(_HELD_OUT), TRAIN]:
        if any(_KEYWORDS[name].search(part) for part in parts):
            return name
    return shard[1] if shard else ""


def choose(
    spec: str, found: Iterable[tuple[str, T]], wanted: str | None, evaluates: bool
) -> list[T]:
    """What of a folder or data set is read.

    Without a split that is wanted it is all, if all of it is for training or says nothing of
    splits.

    Args:
        spec: How the user calls it.
        found: The split of each of its files (or empty), and the file.
        wanted: The split to read, by its own or its usual name; None: none is named.
        evaluates: The rows are not trained on: an only split may be any.

    Raises:
        ValueError: If there is no such split, or one has to be named; it lists what there is.
    """
    files: dict[str, list[T]] = {}
    for split, item in found:
        files.setdefault(split, []).append(item)
    listed = ", ".join(split or "files of no split" for split in files)
    if wanted is not None:
        usual = {usual_name(split): split for split in files if split}
        name = wanted if wanted in files else usual.get(usual_name(wanted), "")
        if name:
            if len(files) > 1:
                logger.info("%s: of its splits (%s), %s is read", spec, listed, name)
            return files[name]
        there = f"there are {listed}" if any(files) else "it has no splits; leave split out"
        raise ValueError(f"{spec}: there is no split {wanted!r}; {there}")
    if set(files) <= {"", TRAIN}:
        return [item for _, item in found]
    if len(files) == 1:
        ((split, items),) = files.items()
        if evaluates or usual_name(split) not in _HELD_OUT:
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
