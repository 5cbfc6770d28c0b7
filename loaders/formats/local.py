"""Sources on this machine: files, and data sets that ``save_to_disk`` of datasets has written."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from loaders.formats.opening import check_fetched
from loaders.formats.records import Record, read_file
from loaders.parsing.fields import show

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_ROWS = 256
_NAME = re.compile(r"\w[\w.+-]{0,200}")


@dataclass(frozen=True)
class _LocalSource:
    path: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path)

    def identity(self) -> list[Any]:
        """Changes when the content does."""
        files = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        # The last time is the only one that copying and unpacking cannot set to that of before.
        versions = [
            [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in map(Path.stat, files)
        ]
        return [self.name, str(self.path.resolve()), versions]


class FileSource(_LocalSource):
    """A file."""

    def records(self, columns: Collection[str] = ()) -> Iterator[Record]:
        """Yield the records; see ``read_file``."""
        return read_file(self.path, columns)


class SavedSource(_LocalSource):
    """A ``Dataset`` that ``save_to_disk`` wrote."""

    def records(self, columns: Collection[str] = ()) -> Iterator[Record]:
        """Yield the records; features such as images stay as they are stored.

        Raises:
            ValueError: If it cannot be read.
        """
        number = 0
        try:
            for file in self.path.glob("*.arrow"):
                check_fetched(file)
            rows = datasets.load_from_disk(str(self.path)).with_format("arrow")
            for table in rows.iter(batch_size=_ROWS):
                for fields in table.to_pylist():
                    number += 1
                    yield Record(number, fields)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"{self.name} (of save_to_disk) cannot be read after row {number}: {reason}"
            ) from error


def is_saved(folder: Path) -> bool:
    """Whether a folder holds one ``Dataset``."""
    return (folder / _STATE).is_file() and (folder / "dataset_info.json").is_file()


def saved_splits(folder: Path) -> list[tuple[str, SavedSource]] | None:
    """The splits of a folder of ``save_to_disk`` by name; None if the folder is something else.

    A ``Dataset`` that was part of a ``DatasetDict`` remembers its split; otherwise the name is "".
    """
    if (folder / _SPLITS).is_file():
        names = _read(folder / _SPLITS).get("splits")
        if not isinstance(names, list) or not names:
            raise ValueError(f"{folder / _SPLITS}: it names no splits; save the data set again")
        for name in names:
            if not _NAME.fullmatch(str(name)) or not is_saved(folder / str(name)):
                raise ValueError(
                    f"{folder}: save_to_disk wrote the split {show(name)}, and it is not there; "
                    "save the data set again"
                )
        return [(str(name), SavedSource(folder / str(name))) for name in names]
    if is_saved(folder):
        own = _read(folder / _STATE).get("_split")
        return [(str(own or "").partition("[")[0], SavedSource(folder))]
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return content if isinstance(content, dict) else {}
