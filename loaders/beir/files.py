"""Find the files of an evaluation set in the BEIR layout: plain, packed, or as on the Hub."""

import re
from pathlib import Path

# If a part is present in several forms, the first of these is read.
TEXTS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson", ".ndjson.gz", ".parquet")
QRELS = (".tsv", ".tsv.gz", ".txt", ".txt.gz", ".qrels", ".qrels.gz", ".jsonl", ".jsonl.gz",
         ".parquet")  # fmt: skip
# Folders in which data sets on the Hub keep the judgements, as Parquet.
HUB_FOLDERS = ("data", "default")
SHARD = re.compile(r"-\d+-of-\d+$")


def text_files(folder: Path, name: str) -> list[Path]:
    """The files of ``corpus`` or ``queries``, in one of several forms; empty if there is none.

    On the Hub they are Parquet files in the folders ``corpus`` and ``queries``.
    """
    for form in TEXTS:
        if (folder / f"{name}{form}").is_file():
            return [folder / f"{name}{form}"]
    return next(
        (found for form in TEXTS if (found := sorted((folder / name).glob(f"*{form}")))), []
    )


def is_beir(folder: Path) -> bool:
    """Whether a folder has a corpus."""
    return folder.is_dir() and bool(text_files(folder, "corpus"))


def qrels_files(folder: Path) -> dict[str, list[Path]]:
    """The files of judgements by split: ``qrels/<split>.tsv``, in one of several forms."""
    found = _splits(folder / "qrels", QRELS)
    places = (folder / name for name in HUB_FOLDERS)
    return found or next((splits for place in places if (splits := _splits(place, QRELS[-1:]))), {})


def _splits(place: Path, forms: tuple[str, ...]) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for form in forms:
        new: dict[str, list[Path]] = {}
        for path in sorted(place.glob(f"*{form}")):
            new.setdefault(SHARD.sub("", path.name.removesuffix(form)), []).append(path)
        splits = new | splits
    return dict(sorted(splits.items()))
