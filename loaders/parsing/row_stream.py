"""Stream the validated rows of files, without storing them."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from loaders.formats.records import Record
from loaders.formats.sources import Source, find_sources
from loaders.options import ReadOptions
from loaders.parsing.columns import Columns, field_of
from loaders.parsing.fields import RowError
from loaders.parsing.rejected import RejectedRows
from loaders.parsing.row_parser import RowParser
from loaders.shapes.rows import Row

# Parts of names that suggest that a field matters.
_EXPECTED = re.compile(r"(?:^|[^a-z])(?:pos|neg|title|score|label|answer)", re.IGNORECASE)


class LocatedRow(NamedTuple):
    """A row with its record, and the name and number (from 0) of its file."""

    file: str
    record: Record
    row: Row
    number: int


class RowStream:
    """Iterates over the rows of files; every iteration reads them anew.

    Args:
        files: A path, a folder, a data set of the Hub, or a list of them; see ``find_sources``.
        options: How records become rows.
        needs_rows: Whether a file without a good row is an error.
        rejected: The file that collects the bad rows; None: a temporary one.

    Attributes:
        parser: Of the latest iteration; it has counted the unused fields.
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
        self.good = self.bad = 0
        self.reasons: list[str] = []

    def __iter__(self) -> Iterator[LocatedRow]:
        self.parser = RowParser(self.options)
        self.good = self.bad = 0
        self.reasons = []
        with tempfile.TemporaryDirectory() as scratch:
            path = self.rejected or Path(scratch) / "rejected_rows.jsonl"
            with RejectedRows(path, self.options) as rejected:
                for number, source in enumerate(self.sources):
                    yield from self._rows_of(source, number, rejected)
                self.parser.columns.check()
                self.bad, self.reasons = rejected.count, rejected.first
                if rejected.count and self.options.on_bad_rows == "error":
                    raise rejected.error(self.good)
                rejected.publish()

    def _rows_of(self, source: Source, number: int, rejected: RejectedRows) -> Iterator[LocatedRow]:
        parser = self.parser
        good_before, bad_before, unused = self.good, rejected.count, parser.unused.copy()
        for record in source.records(parser.columns.columns):
            try:
                row = parser.parse(record)
            except RowError as error:
                rejected.add(source.name, record, str(error))
            else:
                self.good += 1
                yield LocatedRow(source.name, record, row, number)
        for name, count in _suspicious(parser.unused - unused, parser.columns).items():
            parser.suspicious[source.name, name] += count
        bad = rejected.count - bad_before
        skips = self.options.on_bad_rows == "skip"
        if self.needs_rows and self.good == good_before and (bad == 0 or skips):
            parser.columns.check()
            if not bad:
                raise ValueError(f"{source.name}: there is no row in it")
            raise ValueError(
                f"{source.name}: all {bad} rows are bad ({rejected.publish()}); the last: "
                f"{rejected.last}"
            )


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
