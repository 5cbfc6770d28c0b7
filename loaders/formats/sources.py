"""Find the sources of records: files, folders of files, data sets on the Hub."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from loaders.formats.folders import Found, find_in
from loaders.formats.local import FileSource, SavedSource
from loaders.formats.records import Record, check_format, data_suffix
from loaders.formats.splits import TRAIN, choose_split

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.+-]+))?")
# FOLDER[:CONFIG][@SPLIT]
_WITHIN = re.compile(r"(?P<folder>.+?)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.+-]+))?")


@dataclass(frozen=True)
class HubSource:
    """A split of a data set on the Hub, read as a stream."""

    name: str
    builder: datasets.DatasetBuilder
    split: str

    def identity(self) -> list[Any]:
        """Changes with the revision, which is part of the addresses of a data set's files."""
        return [self.name, self.builder.hash, self.split]

    def records(self, columns: Collection[str] = ()) -> Iterator[Record]:
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


Source = FileSource | SavedSource | HubSource


def find_sources(
    files: str | Source | Sequence[str | Source],
    split: str | None = None,
    evaluates: bool = False,
) -> list[Source]:
    """The sources that a ``train_file`` or ``eval_file`` names.

    Args:
        files: A path, or several. A folder stands for all data files in it and below, in the
            order of their names, or is a data set of datasets (``save_to_disk``, or a clone). What
            is no path may be a data set of the Hub, ``organisation/name``. The name of a folder or
            data set may be followed by ``:config`` and ``@split``.
        split: The split to read of all those that name none of their own.
        evaluates: The rows are not trained on; see ``ReadOptions``.

    Raises:
        ValueError: If one does not exist, has no known format, or has several splits of which none
            is chosen.
    """
    specs = [files] if isinstance(files, str | Source) else list(files)
    if not specs:
        raise ValueError("no data file is given")
    return [
        source
        for spec in specs
        for source in ([spec] if isinstance(spec, Source) else _of_spec(spec, split, evaluates))
    ]


def all_files(names: Sequence[str]) -> list[Source]:
    """The named files and all files in the named folders, of whatever split."""
    sources: list[Source] = []
    for name in names:
        found = _folder(name)
        sources += [source for _, source in found[1]] if found else _of_spec(name, None)
    return sources


def _of_spec(spec: str, split: str | None, evaluates: bool = False) -> list[Source]:
    found = _folder(spec)
    if found is not None:
        own, sources = found
        return [*choose_split(spec, sources, own or split, evaluates)]
    path = Path(spec).expanduser()
    if path.exists():
        check_format(path)
        if split is not None:
            raise ValueError(f"split: {spec} is a file, which has no splits; leave split out")
        return [FileSource(path)]
    match = _HUB_NAME.fullmatch(spec)
    if match is None or data_suffix(path):
        raise ValueError(f"{spec}: no such file; the current folder is {Path.cwd()}")
    return [_hub_source(spec, match, split, evaluates)]


def _folder(spec: str) -> tuple[str | None, Found] | None:
    """The split that a folder's spec names, and all sources in it; None if it is no folder."""
    if not spec.strip():
        # Path("") is the current folder.
        raise ValueError("a file name is empty (a shell variable that is not set?); give one")
    path, config, split = Path(spec).expanduser(), None, None
    match = _WITHIN.fullmatch(spec)
    if not path.exists() and match is not None:
        path, config, split = Path(match["folder"]).expanduser(), match["config"], match["split"]
    if not path.is_dir():
        return None
    packed = (path / "corpus.jsonl", path / "corpus.jsonl.gz")
    if (path / "qrels").is_dir() and any(corpus.is_file() for corpus in packed):
        raise ValueError(
            f"{path} is a folder in the BEIR layout; make training rows of it first: "
            f"prepare_data.py beir --input {path} --output_dir DIR"
        )
    return split, find_in(path, config)


def _hub_source(spec: str, match: re.Match[str], split: str | None, evaluates: bool) -> HubSource:
    try:
        builder = datasets.load_dataset_builder(match["name"], match["config"])
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"{spec}: no such file or folder here, and no data set of that name could be opened "
            f"on the Hub: {_first_line(error)}"
        ) from error
    wanted = match["split"] or split
    there = [str(name) for name in builder.config.data_files or builder.info.splits or ()]
    if wanted is None and there:
        # Training takes the split train by itself; any other has to be named.
        wanted = TRAIN if TRAIN in there and not evaluates else None
        (wanted,) = choose_split(spec, [(name, name) for name in there], wanted, evaluates)
    return HubSource(spec, builder, wanted or TRAIN)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
