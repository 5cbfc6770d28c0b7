"""Find the sources in a folder: of data files, of ``save_to_disk``, or a clone from the Hub."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from datasets.data_files import FILES_TO_IGNORE, resolve_pattern, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from loaders.formats.local import FileSource, SavedSource, is_saved, saved_splits
from loaders.formats.records import check_format, data_suffix, known_endings
from loaders.formats.splits import split_of

logger = logging.getLogger(__name__)

# Files that describe a data set, of datasets and of our own scripts: they hold no rows.
_ABOUT = (*FILES_TO_IGNORE, "state.json")
_ABOUT_ENDING = ".settings.json"
# These may hold rows, but are not read.
_UNREAD = (".arrow", ".zst", ".bz2", ".xz", ".zip", ".gz", ".tar", ".tgz", ".xlsx", ".xls", ".pkl")

_SHOWN = 300  # characters of an error
_DEEPEST = 50  # YAML of a card

Found = list[tuple[str, FileSource | SavedSource]]  # the split of each source, or ""


def find_in(folder: Path, config: str | None) -> Found:
    """The sources in a folder, in the order of their names, each with its split or "".

    Args:
        folder: An existing folder.
        config: Of a clone whose README.md lists several configurations: the one to read.

    Raises:
        ValueError: If there is nothing to read, or a configuration has to be named.
    """
    saved = saved_splits(folder)
    configs = {} if saved else _configs(folder)
    if config is not None and config not in configs:
        there = f"; there are {', '.join(configs)}" if configs else ""
        raise ValueError(f"{folder}: it has no configuration {config!r}{there}")
    if saved:
        return [*saved]
    if configs:
        return _of_config(folder, configs, config)
    found = _once(_walk(folder))
    if not found:
        raise ValueError(f"{folder}: no file in this folder ends in one of {known_endings()}")
    return found


def _walk(folder: Path) -> Iterator[tuple[str, FileSource | SavedSource]]:
    others: list[Path] = []
    saved: list[Path] = []
    for path in sorted(everything_in(folder)):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or any(path.is_relative_to(known) for known in saved):
            continue
        if path.is_dir() and is_saved(path):
            saved.append(path)
            for own, source in saved_splits(path) or []:
                yield split_of(relative) or own, source
        elif path.is_file() and path.name not in _ABOUT and not path.name.endswith(_ABOUT_ENDING):
            if data_suffix(path):
                yield split_of(relative), FileSource(path)
            else:
                others.append(path)
    if others:
        rows = [path for path in others if path.suffix.lower() in _UNREAD]
        level = logging.WARNING if rows else logging.INFO
        first = (rows or others)[0]
        logger.log(
            level, "%s: %d files of other kinds are not read: %s", folder, len(others), first
        )


def _once(found: Iterable[tuple[str, FileSource | SavedSource]]) -> Found:
    """The sources without those that are links to others of the same split."""
    first: dict[tuple[str, Path], tuple[str, FileSource | SavedSource]] = {}
    for split, source in found:
        first.setdefault((split, source.path.resolve()), (split, source))
    return [*first.values()]


def everything_in(folder: Path) -> Iterator[Path]:
    """All files and folders below a folder, linked ones too."""
    for place, folders, files in os.walk(folder, followlinks=True):
        here = Path(place)
        way = [step.resolve() for step in (here, *here.parents) if step.is_relative_to(folder)]
        # A link to a folder on the way to it would lead there without end.
        folders[:] = [
            name
            for name in folders
            if not any(step.is_relative_to((here / name).resolve()) for step in way)
        ]
        yield from (here / name for name in (*folders, *files))


def _configs(folder: Path) -> dict[str, dict[str, Any]]:
    """The configurations that a clone's README.md lists, if it names their files."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    try:
        given = _metadata(card.read_text(encoding="utf-8-sig")).get("configs")
        found = MetadataConfigs.from_dataset_card_data(DatasetCardData(configs=given))
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error)[:_SHOWN].split())
        raise ValueError(f"{card}: its configurations cannot be read: {reason}") from None
    stated = {
        name: {key: value for key, value in its.items() if value is not None}
        for name, its in found.items()
    }
    return {name: its for name, its in stated.items() if "data_files" in its or "data_dir" in its}


def _metadata(card: str) -> dict[str, Any]:
    """The YAML at the head of a card. Aliases are refused: they can expand without limit."""
    match = REGEX_YAML_BLOCK.search(card)
    if match is None:
        return {}
    depth = 0
    for event in yaml.parse(match[2], yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("its YAML has aliases (*name); write them out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"its YAML is nested more than {_DEEPEST} deep")
    found = yaml.safe_load(match[2])
    return found if isinstance(found, dict) else {}


def _of_config(folder: Path, configs: dict[str, dict[str, Any]], config: str | None) -> Found:
    name = config or MetadataConfigs(configs).get_default_config_name()
    if name is None:
        raise ValueError(
            f"{folder}: it has several configurations, and none is chosen: {', '.join(configs)}; "
            f"name one: {folder}:{next(iter(configs))}"
        )
    base = folder / str(configs[name].get("data_dir", "."))
    if not base.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder / 'README.md'}: {base} is outside of the folder")
    if "data_files" not in configs[name]:
        return _once(_walk(base))
    patterns = sanitize_patterns(configs[name]["data_files"])
    return [
        (str(split), FileSource(path))
        for split, its in patterns.items()
        for pattern in its
        for path in _matching(base, folder, str(pattern))
    ]


def _matching(base: Path, folder: Path, pattern: str) -> list[Path]:
    """The files that a pattern of README.md matches, all in the folder and of a known format."""
    place = folder / "README.md"
    if "://" in pattern or "::" in pattern:
        raise ValueError(f"{place}: {pattern} is not a file of this folder; fetch it, and name it")
    try:
        paths = [Path(path) for path in resolve_pattern(pattern, str(base))]
    except (OSError, ValueError):
        raise ValueError(f"{place}: there is no file {pattern}; fetch it, or name others") from None
    # The files of a snapshot in the cache of the Hub are links to its blobs.
    home = folder.parents[1] if folder.parent.name == "snapshots" else folder
    for path in paths:
        if not path.resolve().is_relative_to(home.resolve()):
            raise ValueError(f"{place}: {pattern} is outside of the folder")
        check_format(path)
    return sorted(paths)
