"""Where records come from: files, folders of files, data sets on the Hub."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from loaders.records import FORMATS, Record, data_suffix, read_file

logger = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.-]+))?")


@dataclass(frozen=True)
class FileSource:
    """A local file."""

    path: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path)

    def identity(self) -> list[Any]:
        """Changes when the content does."""
        stat = self.path.stat()
        return [self.name, str(self.path.resolve()), stat.st_size, stat.st_mtime_ns]

    def records(self) -> Iterator[Record]:
        """Yield the records; see ``read_file``."""
        return read_file(self.path)


@dataclass(frozen=True)
class HubSource:
    """A split of a data set on the Hub, read as a stream."""

    name: str
    builder: datasets.DatasetBuilder
    split: str

    def identity(self) -> list[Any]:
        """Changes with the revision, which is part of the addresses of a data set's files."""
        return [self.name, self.builder.hash, self.split]

    def records(self) -> Iterator[Record]:
        """Yield the records.

        Raises:
            ValueError: If there is no such split, or the stream breaks off.
        """
        number = 0
        try:
            rows = self.builder.as_streaming_dataset(split=self.split)
            for number, fields in enumerate(rows, start=1):
                yield Record(number, fields)
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            reason = _first_line(error)
            raise ValueError(f"{self.name} cannot be read after row {number}: {reason}") from error


Source = FileSource | HubSource


def find_sources(files: str | Sequence[str]) -> list[Source]:
    """The sources that a ``train_file`` or ``eval_file`` names.

    Args:
        files: A path, or several. A folder stands for all data files in it and below, in the
            order of their names. What is no path may be a data set of the Hub:
            ``organisation/name[:config][@split]``; the split is "train" unless given.

    Raises:
        ValueError: If one does not exist, or is of no known format.
    """
    specs = [files] if isinstance(files, str) else list(files)
    if not specs:
        raise ValueError("no data file is given")
    return [source for spec in specs for source in _sources_of(spec)]


def _sources_of(spec: str) -> list[Source]:
    path = Path(spec).expanduser()
    if path.is_dir():
        return [*_files_in(path)]
    if path.exists():
        if not data_suffix(path):
            raise ValueError(f"{spec}: the name must end in one of {_known_endings()}")
        return [FileSource(path)]
    match = _HUB_NAME.fullmatch(spec)
    if match is None or data_suffix(path):
        raise ValueError(f"{spec}: no such file; the current folder is {Path.cwd()}")
    return [_hub_source(spec, match["name"], match["config"], match["split"] or "train")]


def _files_in(folder: Path) -> list[FileSource]:
    found: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            (found if data_suffix(path) else others).append(path)
    if not found:
        raise ValueError(f"{folder}: no file in this folder ends in one of {_known_endings()}")
    if others:
        logger.info("%s: %d files of other kinds are not read: %s", folder, len(others), others[0])
    return [FileSource(path) for path in found]


def _hub_source(spec: str, name: str, config: str | None, split: str) -> HubSource:
    try:
        builder = datasets.load_dataset_builder(name, config)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"{spec}: no such file or folder here, and no data set of that name could be opened "
            f"on the Hub: {_first_line(error)}"
        ) from error
    return HubSource(spec, builder, split)


def _known_endings() -> str:
    return ", ".join(FORMATS) + " (or .gz of the text ones)"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
