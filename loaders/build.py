"""Read all sources once: records in, an Arrow file of rows and a file of notes out."""

import json
import logging
import marshal
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from datasets import Dataset

from common.hashing import text_hash
from common.typed_values import one_line
from loaders.formats.sources import Source
from loaders.options import DEFAULT_LABEL_MAP, ReadOptions
from loaders.parsing.row_stream import LocatedRow, RowStream
from loaders.shapes.arrow import GROUP, SCORED_PAIR, ArrowFile
from loaders.shapes.conversions import to_group, to_scored_pairs
from loaders.shapes.grouping import unite
from loaders.shapes.rows import CandidateGroup, Row, ScoredPair, Shape

ROWS, REJECTED, NOTES = "rows.arrow", "rejected_rows.jsonl", "notes.json"
DIGEST = "digest"


class Note(NamedTuple):
    """Something the user should know about a reading.

    Attributes:
        level: Of logging.
        text: One line.
        of_groups: Relevant only to losses that compare the documents of a group.
    """

    level: int
    text: str
    of_groups: bool = False


class Build:
    """Reads sources once, into ``folder``: rows, rejected rows, notes, a digest of the content.

    Positive pairs are stored as candidate groups, some of which may have no positive.
    """

    def __init__(
        self, sources: list[Source], shape: Shape, options: ReadOptions, folder: Path
    ) -> None:
        self.stream = RowStream(sources, options, rejected=folder / REJECTED)
        self.shape = shape
        self.options = options
        self.folder = folder
        self.notes: list[Note] = []
        self.digest = 0

    def run(self) -> None:
        """Read and write.

        Raises:
            ValueError: For bad rows (unless they are to be skipped), and for a file that cannot
                be read or has no good row at all.
        """
        if self.shape == "scored_pair":
            self._write_scored_pairs()
        else:
            self._write_groups()
        if bad := self.stream.bad:
            total, first = bad + self.stream.good, self.stream.reasons[0]
            self._note(f"{bad} of {total} rows are bad and skipped; the first: {first}")
        self._note_labels_and_fields()
        (self.folder / NOTES).write_text(json.dumps(self.notes), encoding="utf-8")
        (self.folder / DIGEST).write_text(f"{self.digest:08x}", encoding="utf-8")

    def _located(self) -> Iterator[LocatedRow]:
        for located in self.stream:
            # Version 2 writes values alone, not which of them are the same object.
            self.digest = crc32(marshal.dumps(tuple(located.row), 2), self.digest)
            yield located

    def _rows(self) -> Iterator[Row]:
        return (located.row for located in self._located())

    def _write_scored_pairs(self) -> None:
        with ArrowFile(self.folder / ROWS, SCORED_PAIR.arrow_schema) as file:
            for pairs in self._scored_pairs():
                for pair in pairs:
                    file.write(pair._asdict())

    def _scored_pairs(self) -> Iterator[list[ScoredPair]]:
        """Yield the scored pairs of each row; note if all have the same relevance."""
        relevances: set[float] = set()
        count = 0
        for row in self._rows():
            pairs = to_scored_pairs(row)
            count += len(pairs)
            if len(relevances) < 2:
                relevances |= {pair.rel for pair in pairs}
            yield pairs
        if count > 1 and len(relevances) == 1:
            self._note(f"all {count} rows have the relevance {relevances.pop():g}")

    def _write_groups(self) -> None:
        """Write each row as a group, then unite the scored pairs of each query."""
        keys = array("Q")  # 8 bytes per row, whatever the length of its texts
        weights = graded = repeats = 0
        staged = self.folder / "staged.arrow"
        with ArrowFile(staged, GROUP.arrow_schema) as file:
            for row in self._rows():
                group = to_group(row, self.options.positive_threshold)
                graded += group.graded
                repeats += group.repeats_a_document()
                if isinstance(row, ScoredPair):
                    keys.append(text_hash(group.query, group.prompt))
                    weights += row.weight != 1
                else:
                    keys.append(0)
                file.write(group._asdict())
        if weights:
            self._note(f"groups have no weights: those of {weights} scored pairs are not used")
        if not graded:  # nothing to unite
            self._note_repeats(repeats)
            staged.rename(self.folder / ROWS)
            return
        with ArrowFile(self.folder / ROWS, GROUP.arrow_schema) as file:
            for group in self._counted(unite(Dataset.from_file(str(staged)), keys)):
                file.write(group._asdict())
        staged.unlink()

    def _counted(self, groups: Iterable[CandidateGroup]) -> Iterator[CandidateGroup]:
        """Yield the groups; note how many teach a comparison nothing or repeat a document."""
        flat = total = repeats = 0
        for group in groups:
            repeats += group.repeats_a_document()
            flat += group.graded and len(set(group.relevances())) < 2
            total += 1
            yield group
        self._note_repeats(repeats)
        if flat:
            self._note(
                f"{flat} of {total} queries have documents of one relevance only; losses that "
                "compare documents learn nothing from them",
                of_groups=True,
            )

    def _note_repeats(self, groups: int) -> None:
        if groups:
            self._note(
                f"{groups} queries have a document more than once; it is one candidate, with the "
                "highest of its relevances",
                of_groups=True,
            )

    def _note_labels_and_fields(self) -> None:
        parser = self.stream.parser
        if count := parser.labels.mapped_by_default:
            self._note(
                f"{count} labels mapped by the default label_map {json.dumps(DEFAULT_LABEL_MAP)}; "
                "give label_map or label_range to change that"
            )
        if count := parser.scored_positives:
            self._note(
                f"{count} rows have several positives with scores and no negatives: all count "
                "as positives; if the scores tell which are (sentence-transformers' labeled-list), "
                'give columns: {"<the texts>": "doc", "scores": "rel"}'
            )
        for (file, name), count in parser.suspicious.most_common(20):
            self._note(f"{file}: the field {name} is not used ({count} times)")
        said = {name for _, name in parser.suspicious}
        others = [item for item in parser.unused.most_common(20) if item[0] not in said]
        if others:
            names = ", ".join(f"{name} ({count} times)" for name, count in others)
            self._note(f"fields that are not used: {names}", logging.INFO)

    def _note(self, text: str, level: int = logging.WARNING, of_groups: bool = False) -> None:
        self.notes.append(Note(level, one_line(text), of_groups))
