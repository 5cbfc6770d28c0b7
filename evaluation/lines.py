"""The lines of a text file, with their places."""

from collections.abc import Iterator
from pathlib import Path

from evaluation.mistakes import Mistakes


def read_lines(path: Path, mistakes: Mistakes) -> Iterator[tuple[str, str]]:
    """Yield (``file:line``, line) for every line that is not blank, up to one that is not UTF-8."""
    if not path.is_file():
        mistakes.add(
            f"{path} does not exist; an evaluation set is a folder with corpus.jsonl, "
            "queries.jsonl and qrels/<split>.tsv"
        )
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                mistakes.add(f"{path}:{number}: not UTF-8; convert the file first")
                return
            if text.strip():
                yield f"{path}:{number}", text
