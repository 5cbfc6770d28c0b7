"""Settings that sub-commands share, checks of their outputs, and a progress bar."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from common.flags import Settings, option, required
from loaders.beir.problems import listed
from loaders.formats.sources import Source

T = TypeVar("T")


@dataclass(kw_only=True)
class InputSettings(Settings):
    """What is read."""

    input: list[str] = required("Files, folders or Hub data sets, in any format of rows.")


@dataclass(kw_only=True)
class OutputSettings(Settings):
    """Where to write."""

    output_dir: Path = required("The folder.")
    overwrite: bool = option(False, "Replace files that are there already.")

    def check_output(self, files: Iterable[str]) -> None:
        """Refuse to write to a file, or over the ``files`` of the folder unasked.

        Told are files of rows that will stay there beside new ones: of inputs that are gone, say.
        """
        folder, files = self.output_dir, list(files)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"output_dir: {folder} is a file; give a folder")
        present = [name for name in files if (folder / name).exists()]
        if present and not self.overwrite:
            raise ValueError(f"{folder} already holds {present[0]}; add --overwrite to replace it")
        stay = sorted({path.name for path in folder.glob("*.jsonl")} - set(files))
        if present and stay:
            print(
                f"{folder}: files of earlier runs stay: {listed(stay)}; remove what is out of date"
            )


def check_output_file(path: Path, overwrite: bool) -> None:
    """Refuse to write to a folder, or over a file unasked."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already; add --overwrite to replace it")


def check_not_read(output: Path, names: Sequence[str], sources: Iterable[Source]) -> None:
    """Refuse an output that an earlier run has put into a folder of the input."""
    named = {Path(name).expanduser().resolve() for name in names}
    read = {Path(source.name).resolve() for source in sources}
    if output.resolve() in read - named:
        raise ValueError(
            f"output: {output} is in a folder of the input, and would be read too; give a place "
            "outside of it, or name the files to read"
        )


def progress(items: Iterable[T], what: str, unit: str = "row") -> Iterator[T]:
    """Yield the items with a progress bar on stderr."""
    yield from tqdm(items, desc=what, unit=f" {unit}s", mininterval=0.5)
