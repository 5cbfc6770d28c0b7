"""Stream the validated rows of files, and collect the bad ones with their reasons."""

import json
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from loaders.formats.records import Record
from loaders.formats.sources import Source, find_sources
from loaders.options import ReadOptions
from loaders.parsing.columns import Columns, field_of
from loaders.parsing.fields import RowError
from loaders.parsing.row_parser import RowParser
from loaders.shapes.rows import Row

_SHOWN = 20  # bad rows in a message
# Parts of names that suggest that a field matters.
_EXPECTED = re.compile(r"(?:^|[^a-z])(?:pos|neg|title|score|label|answer)", re.IGNORECASE)


class LocatedRow(NamedTuple):
    """A row with its record and the name of its file."""

    file: str
    record: Record
    row: Row


class RowStream:
    """Iterates over the rows of files; every iteration reads them anew.

    Args:
        files: A path, a folder, a data set of the Hub, or a list of them; see ``find_sources``.
        options: How records become rows.
        needs_rows: Whether a file without a good row is an error.
        rejected: The file that collects the bad rows, as JSON Lines of ``file``, ``line``,
            ``reason``, ``record``; None: a temporary one.

    Attributes:
        parser: Of the latest iteration; it has counted the unused fields.
        number: Of the file of the latest row, from 0.
        good: Number of good rows in the latest iteration.
        bad: Number of bad rows in the latest iteration.
        reasons: Place and reason of the first bad rows.

    Raises:
        ValueError: While iterating: at the end, if there were bad rows and they are not to be
            skipped, or a column that no row has; after a file without a good row, if
            ``needs_rows``, unless its bad rows are going to be reported at the end.
    """

    def __init__(
        self,
        files: str | Source | Sequence[str | Source],
        options: ReadOptions,
        needs_rows: bool = True,
        rejected: Path | None = None,
    ) -> None:
        self.needs_rows = needs_rows
        self.sources = find_sources(files, options.split, options.evaluates)
        self.options = options
        self.rejected = rejected
        self.parser = RowParser(options)
        self.number = self.good = self.bad = 0
        self.reasons: list[str] = []

    def __iter__(self) -> Iterator[LocatedRow]:
        self.parser = RowParser(self.options)
        self.good = self.bad = 0
        self.reasons = []
        with tempfile.TemporaryDirectory() as scratch:
            path = self.rejected or Path(scratch) / "rejected_rows.jsonl"
            with path.open("w", encoding="utf-8") as rejected:
                for number, source in enumerate(self.sources):
                    self.number = number
                    yield from self._rows_of(source, rejected)
            self.parser.columns.check()
            copy_rejected(path, self.options)
        if self.bad and self.options.on_bad_rows == "error":
            more = [f"... and {self.bad - _SHOWN} more"] if self.bad > _SHOWN else []
            raise ValueError(
                f"{self.bad} of {self.bad + self.good} rows are bad ({self._where()}); repair "
                'them, or set on_bad_rows to "skip" to go on without them:\n  '
                + "\n  ".join(self.reasons + more)
            )

    def _rows_of(self, source: Source, rejected: IO[str]) -> Iterator[LocatedRow]:
        parser = self.parser
        good_before, bad_before, unused = self.good, self.bad, parser.unused.copy()
        last = ""
        for record in source.records(parser.columns.columns):
            try:
                row = parser.parse(record)
            except RowError as error:
                self.bad += 1
                last = f"{source.name}:{record.line}: {error}"
                if len(self.reasons) < _SHOWN:
                    self.reasons.append(last)
                rejected.write(_rejected_line(source.name, record, str(error)))
            else:
                self.good += 1
                yield LocatedRow(source.name, record, row)
        for name, count in _suspicious(parser.unused - unused, parser.columns).items():
            parser.suspicious[source.name, name] += count
        bad = self.bad - bad_before
        skips = self.options.on_bad_rows == "skip"
        if self.needs_rows and self.good == good_before and (bad == 0 or skips):
            parser.columns.check()
            if not bad:
                raise ValueError(f"{source.name}: there is no row in it")
            rejected.flush()
            copy_rejected(Path(rejected.name), self.options)
            raise ValueError(
                f"{source.name}: all {bad} rows are bad ({self._where()}); the last: {last}"
            )

    def _where(self) -> str:
        """Where the bad rows are."""
        if self.options.rejected_file is None:
            return "give rejected_file to have all of them written"
        return f"all of them are in {self.options.rejected_file}"


def _suspicious(unused: Counter[str], columns: Columns) -> Counter[str]:
    """The unused fields whose names suggest that they matter.

    Args:
        unused: Field name -> times; ``outer.inner`` for a field of nested objects.
        columns: Tell whether ``outer`` is itself a field.
    """
    found: Counter[str] = Counter()
    for name, count in unused.items():
        outer, _, inner = name.rpartition(".")
        within = outer in columns.columns or field_of(outer) is not None
        if _EXPECTED.search(inner if within else name):
            found[name] = count
    return found


def copy_rejected(path: Path, options: ReadOptions) -> bool:
    """Copy the rejected rows to ``rejected_file`` atomically; return whether there are any.

    Those of an earlier reading do not outlive their repair.
    """
    target = options.rejected_file
    if target is None:
        return False
    if path.stat().st_size == 0:
        target.unlink(missing_ok=True)
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # All processes of a run may do this at once.
        beside = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copyfile(path, beside)
        beside.replace(target)
    except OSError as error:
        raise ValueError(f"rejected_file: {target} cannot be written: {error}") from None
    return True


def _rejected_line(file: str, record: Record, reason: str) -> str:
    """The line of JSON for a bad row."""
    row = {"file": file, "line": record.line, "reason": reason, "record": record.fields}
    try:
        text = json.dumps(_plain(row), ensure_ascii=False) + "\n"
        text.encode()
    except RecursionError:
        return json.dumps(row | {"record": "(nested too deeply to be shown)"}) + "\n"
    except UnicodeEncodeError:  # half a surrogate pair, which UTF-8 does not have
        return json.dumps(_plain(row)) + "\n"
    return text


def _plain(value: Any) -> Any:
    """``value`` as JSON types: dates and the like become text, and so does NaN."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | None) else str(value)
