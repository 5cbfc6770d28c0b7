"""Read files as streams of records: one reader per format."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from loaders.formats.json_text import DECODER, JsonArray, RepeatedName
from loaders.formats.opening import BrokenFile, check_fetched, open_text, read_errors
from loaders.options import DEFAULT_LABEL_MAP
from loaders.parsing.fields import ALIASES, show


class Record(NamedTuple):
    """One entry of a file, before any check.

    Attributes:
        line: Where it begins, from 1; in Parquet and on the Hub the number of the row.
        fields: An object of name -> value, or whatever the file has in its place.
        from_text: Whether all values are texts (CSV, TSV), from which numbers are parsed; else they
            have types (JSON, Parquet).
        default_labels: Whether labels are read by ``DEFAULT_LABEL_MAP``, unless the options say
            otherwise.
        problem: Why it could not be parsed, if so.
    """

    line: int
    fields: Any
    from_text: bool = False
    default_labels: bool = False
    problem: str | None = None


def read_file(path: Path, columns: Collection[str] = ()) -> Iterator[Record]:
    """Yield the records of a file; its name tells the format.

    Args:
        path: The file.
        columns: Names that mark the first line of a table as its header, beside those of a query.

    Raises:
        ValueError: If the file cannot be read (on): ``file:line: reason``.
    """
    with read_errors(path):
        check_fetched(path)
        yield from FORMATS[data_suffix(path)](path, columns)


def check_format(path: Path) -> str:
    """The suffix that tells a file's format, without ``.gz``.

    Raises:
        ValueError: If it is not one of ``FORMATS``.
    """
    suffix = data_suffix(path)
    if not suffix:
        remedy = "; export it to one of these, or unpack it" if path.is_file() else ""
        raise ValueError(f"{path}: the name must end in one of {known_endings()}{remedy}")
    return suffix


def known_endings() -> str:
    """The endings of ``FORMATS``, for a message."""
    return ", ".join(FORMATS) + " (or .gz of the text ones)"


def data_suffix(path: Path) -> str:
    """``.jsonl`` of ``a.jsonl`` and of ``a.jsonl.gz``; empty if it is none of ``FORMATS``."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    packed_binary = suffix == ".parquet" and name.endswith(".gz")
    return suffix if suffix in FORMATS and not packed_binary else ""


def read_json(path: Path, columns: Collection[str] = ()) -> Iterator[Record]:
    """A JSON array, or JSON Lines; the first character tells which."""
    with open_text(path, newline="\n") as stream:
        lines = ((at, line.strip()) for at, line in enumerate(stream, 1) if not line.isspace())
        at, first = next(lines, (1, ""))
    if first == "{":
        raise BrokenFile(
            at,
            "a JSON object that goes over several lines; give an array of rows, or one row a line",
        )
    with open_text(path, newline="\n") as stream:
        if first.startswith("["):
            for number, element in JsonArray(stream):
                yield _json_record(number, element)
            return
        for number, line in enumerate(stream, start=1):
            if not line.isspace():
                yield _json_line(number, line)


def _json_line(number: int, line: str) -> Record:
    try:
        return _json_record(number, DECODER.decode(line))
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} (column {error.colno})"
    except (ValueError, RecursionError) as error:  # a number too long, a list too deep
        problem = f"not JSON: {error}"
    return Record(number, line.rstrip("\r\n"), problem=problem)


def _json_record(number: int, value: Any) -> Record:
    if isinstance(value, RepeatedName):
        problem = f'"{value.name}" occurs twice in this row; keep one'
        return Record(number, value.fields, problem=problem)
    return Record(number, value)


_QUOTES = 'a cell with a quotation mark stands in quotes, with the mark doubled: "a ""b"" c"'


def read_csv(path: Path, columns: Collection[str] = ()) -> Iterator[Record]:
    """Comma-separated cells, quoted where needed."""
    csv.field_size_limit(sys.maxsize)  # the default rejects documents above 128 KiB

    def rows() -> Iterator[tuple[int, list[str]]]:
        with open_text(path, newline="") as stream:
            # Strict: a stray quotation mark must not swallow the rows that follow.
            reader = csv.reader(stream, strict=True)
            begin = 1
            try:
                for cells in reader:
                    yield begin, cells
                    begin = reader.line_num + 1
            except csv.Error as error:
                raise BrokenFile(begin, f"not CSV: {error}; {_QUOTES}") from None

    return _read_table(rows(), columns)


def read_tsv(path: Path, columns: Collection[str] = ()) -> Iterator[Record]:
    """Tab-separated cells; quotation marks are ordinary characters."""

    def rows() -> Iterator[tuple[int, list[str]]]:
        with open_text(path, newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                yield number, line.rstrip("\r\n").split("\t")

    return _read_table(rows(), columns)


def _read_table(
    rows: Iterable[tuple[int, list[str]]], columns: Collection[str]
) -> Iterator[Record]:
    """Records of a table, with a header or without: query, doc, label, or query, pos_doc."""
    names: list[str] = []
    default_labels = False
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        if not names:
            names = [cell.strip() for cell in cells]
            if not set(names).isdisjoint([*ALIASES["query"], *columns]):
                _check_header(line, names)
                continue
            names = _headless_names(line, cells)
            default_labels = cells[-1].strip() in DEFAULT_LABEL_MAP and len(cells) == 3
        if len(cells) != len(names):
            columns = ", ".join(names)
            problem = f"{len(cells)} cells, where there are {len(names)} columns ({columns})"
            yield Record(line, cells, problem=problem)
        else:
            fields = dict(zip(names, cells, strict=True))
            # An empty cell is a missing value; where a text is required it stays, to be refused.
            given = {
                name: cell if cell or name in _TEXTS else None for name, cell in fields.items()
            }
            yield Record(line, given, from_text=True, default_labels=default_labels)


_TEXTS = {name for field in ("query", "doc", "pos_doc") for name in ALIASES[field]}


def _check_header(line: int, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BrokenFile(line, f'the header names two columns "{name}"; rename one')


def _headless_names(line: int, cells: list[str]) -> list[str]:
    if len(cells) == 1:
        raise BrokenFile(
            line,
            "one column only; a .csv is separated by commas, a .tsv or .txt by tabs",
        )
    if len(cells) > 3:
        raise BrokenFile(
            line,
            f"{len(cells)} columns and no header; without one a file has query, doc, label, or "
            "query, pos_doc",
        )
    names = ["query", "doc", "label"] if len(cells) == 3 else ["query", "pos_doc"]
    # A header in other words or in capitals must not be taken for the first row.
    for cell, known in zip(cells, _HEADER_WORDS, strict=False):
        if cell.strip().lower() in known:
            raise BrokenFile(
                line,
                f"the header names no query; its columns must be {', '.join(names)} (in small "
                "letters), or give columns: {"
                + json.dumps(cells[0].strip(), ensure_ascii=False)
                + ': "query", ...}',
            )
    return names


_HEADER_WORDS = (
    {*ALIASES["query"], "question", "问题", "查询"},
    {*ALIASES["doc"], *ALIASES["pos_doc"], "answer", "答案", "回答", "文档"},
    {*ALIASES["rel"], "标签", "分数"},
)


def read_parquet(path: Path, columns: Collection[str] = ()) -> Iterator[Record]:
    """The rows of a Parquet file."""
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = Counter(file.schema_arrow.names)
            if repeated := [name for name, count in names.items() if count > 1]:
                raise BrokenFile(1, f"several columns are named {show(repeated[0])}; rename them")
            for batch in file.iter_batches(batch_size=256):
                for fields in batch.to_pylist():
                    number += 1
                    yield Record(number, fields)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BrokenFile(number + 1, f"not Parquet: {error}") from None


FORMATS: dict[str, Callable[[Path, Collection[str]], Iterator[Record]]] = {
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".txt": read_tsv,
    ".parquet": read_parquet,
}
