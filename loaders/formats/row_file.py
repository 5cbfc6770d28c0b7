"""Write records to a file in any of the formats that rows are read from."""

import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa

from loaders.formats.records import check_format
from loaders.shapes.arrow import ArrowFile

# Formats whose cells are texts and numbers: they cannot hold a list.
TABLES = {".csv": "csv", ".tsv": "tsv", ".txt": "tsv"}

_TEXT, _NUMBER = pa.string(), pa.float64()
_TYPES = {
    "rel": _NUMBER,
    "weight": _NUMBER,
    "pos": pa.list_(_TEXT),
    "neg": pa.list_(_TEXT),
    "negatives": pa.list_(_TEXT),
    "pos_scores": pa.list_(_NUMBER),
    "neg_scores": pa.list_(_NUMBER),
    "hits": pa.list_(pa.struct({"content": _TEXT, "label": _NUMBER})),
}  # every other column is a text
_SPACES = str.maketrans("\t\r\n", "   ")  # a TSV cell cannot hold these


class RowFile:
    """Writes a file of records in the format that its name tells; it appears when complete.

    In JSON a field that is None is left out, in a table its cell is empty. The same records give
    the same bytes.

    Args:
        path: Ends in one of the formats that are read, text ones also in ``.gz``.
        columns: The names of the fields, in order. A record may lack some.
        header: Whether a table begins with the names.

    Raises:
        ValueError: If the name ends in no format.
    """

    def __init__(self, path: Path, columns: Sequence[str], header: bool = True) -> None:
        self.path = path
        self.columns = list(columns)
        self.header = header
        self.suffix = check_format(path)
        self.rows = 0
        self.exits = ExitStack()

    def __enter__(self) -> Self:
        beside = self.exits.enter_context(atomic_file(self.path))
        if self.suffix == ".parquet":
            schema = pa.schema([(name, _TYPES.get(name, _TEXT)) for name in self.columns])
            self.parquet = self.exits.enter_context(ArrowFile(beside, schema, parquet=True))
            return self
        packed = self.path.name.lower().endswith(".gz")
        self.stream = self.exits.enter_context(open_output(beside, packed))
        # Every text is quoted, so that line breaks and quotation marks in it are safe.
        self.csv = csv.writer(self.stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        if self.header and self.suffix in TABLES:
            self._write_cells(self.columns)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is None and self.suffix == ".json":
            self.stream.write("\n]\n" if self.rows else "[]\n")
        self.exits.__exit__(kind, *rest)

    def write(self, record: dict[str, Any]) -> None:
        """Add a record."""
        if self.suffix == ".parquet":
            self.parquet.write(record)
        elif self.suffix in TABLES:
            self._write_cells([record.get(name) for name in self.columns])
        elif self.suffix == ".json":
            self.stream.write(("[\n" if not self.rows else ",\n") + as_json(record))
        else:
            self.stream.write(as_json(record) + "\n")
        self.rows += 1

    def _write_cells(self, cells: Sequence[str | float | None]) -> None:
        if TABLES[self.suffix] == "csv":
            self.csv.writerow(cells)
        else:
            texts = ("" if cell is None else str(cell).translate(_SPACES) for cell in cells)
            self.stream.write("\t".join(texts) + "\n")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; it is renamed to ``path`` on success, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, which appears when complete."""
    with atomic_file(path) as beside, open_output(beside) as stream:
        stream.writelines(f"{line}\n" for line in lines)


@contextmanager
def open_output(path: Path, packed: bool = False) -> Iterator[IO[str]]:
    """Open a UTF-8 text file for writing; ``packed``: by gzip, reproducibly (no time stamp)."""
    with ExitStack() as exits:
        raw: Any = exits.enter_context(path.open("wb"))
        if packed:
            packer = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
            raw = exits.enter_context(packer)
        yield exits.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline="\n"))


def as_json(record: dict[str, Any]) -> str:
    """One line of JSON; fields that are None are left out, dates and the like become texts."""
    present = {name: value for name, value in record.items() if value is not None}
    try:
        text = json.dumps(present, ensure_ascii=False, default=str, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 does not have
        return json.dumps(present, default=str)
    except ValueError:  # NaN and infinity, which JSON does not have: null
        return as_json(json.loads(json.dumps(present, default=str), parse_constant=lambda _: None))
    return text
