"""One reading of all sources: records in, an Arrow file and notes out."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from common.types import Shape
from loaders.formats.sources import Source
from loaders.options import DEFAULT_LABEL_MAP, ReadOptions
from loaders.parsing.rejected import RejectedRows
from loaders.parsing.row_parser import RowParser
from loaders.parsing.row_stream import good_rows
from loaders.shapes.arrow import GROUP, SCORED_PAIR, ArrowFile
from loaders.shapes.conversions import to_group, to_scored_pairs
from loaders.shapes.grouping import Grouping
from loaders.shapes.rows import Row, ScoredPair

ROWS, REJECTED, NOTES = "rows.arrow", "rejected_rows.jsonl", "notes.json"


class Build:
    """Reads sources once, into ``folder``: the rows, the rejected rows, and the notes.

    Attributes:
        notes: (logging level, text) of what the user is to know about the reading.
    """

    def __init__(
        self, sources: list[Source], shape: Shape, options: ReadOptions, folder: Path
    ) -> None:
        self.sources = sources
        self.shape = shape
        self.options = options
        self.folder = folder
        self.parser = RowParser(options)
        self.good = 0
        self.notes: list[tuple[int, str]] = []

    def run(self) -> None:
        """Read and write.

        Raises:
            ValueError: For bad rows (unless they are to be skipped), for a file that cannot be
                read or has no good row at all, and when no row is left in the end.
        """
        with RejectedRows(self.folder / REJECTED, self.options) as rejected:
            if self.shape == "scored_pair":
                self._write_scored_pairs(rejected)
            else:
                self._write_groups(rejected)
            if rejected.count and self.options.on_bad_rows == "error":
                raise rejected.error(self.good)
            if rejected.count:
                self.notes.append((logging.WARNING, rejected.note(self.good)))
        self._note_labels_and_fields()
        (self.folder / NOTES).write_text(json.dumps(self.notes), encoding="utf-8")

    def _rows(self, rejected: RejectedRows) -> Iterator[Row]:
        for located in good_rows(self.sources, self.parser, rejected):
            self.good += 1
            yield located.row

    def _write_scored_pairs(self, rejected: RejectedRows) -> None:
        relevances: set[float] = set()
        with ArrowFile(self.folder / ROWS, SCORED_PAIR) as file:
            for row in self._rows(rejected):
                for pair in to_scored_pairs(row):
                    file.write(pair)
                    if len(relevances) < 2:
                        relevances.add(pair["rel"])
        self._note_one_relevance(file.rows, relevances)

    def _write_groups(self, rejected: RejectedRows) -> None:
        """Write each row as a group, then unite the scored pairs of each query."""
        grouping = Grouping()
        repeats = 0
        staged = self.folder / "staged.arrow"
        weights = graded = 0
        with ArrowFile(staged, GROUP) as file:
            for row in self._rows(rejected):
                group = to_group(row, self.options.positive_threshold)
                graded += group["graded"]
                repeats += _repeats(group)
                if isinstance(row, ScoredPair):
                    grouping.add_pair(group)
                    weights += row.weight != 1
                else:
                    grouping.add_group()
                file.write(group)
        if weights:
            self._note(f"groups have no weights: those of {weights} scored pairs are not used")
        if not graded:
            self._note_repeats(repeats)
            staged.rename(self.folder / ROWS)
            return
        groups = grouping.groups(Dataset.from_file(str(staged)))
        kept = self._with_positives(groups) if self.shape == "positive_pair" else groups
        with ArrowFile(self.folder / ROWS, GROUP) as file:
            for group in self._counted(kept):
                file.write(group)
        staged.unlink()
        self._check_some_left(file.rows, rejected)

    def _check_some_left(self, rows: int, rejected: RejectedRows) -> None:
        stops_anyway = rejected.count and self.options.on_bad_rows == "error"
        if not rows and not stops_anyway:
            reasons = "; ".join(text for _, text in self.notes)
            raise ValueError(f"no row is left to train on: {reasons}")

    def _with_positives(self, groups: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Leave out groups without a positive, of which no positive pair can be made."""
        left_out = 0
        for group in groups:
            if group["pos"]:
                yield group
            else:
                left_out += 1
        if left_out:
            self._note(
                f"{left_out} queries are left out: none of their documents has a relevance of at "
                f"least {self.options.positive_threshold:g} (positive_threshold)"
            )

    def _counted(self, groups: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Tell how many groups have documents of one relevance only, and how many repeat one."""
        flat = total = repeats = 0
        for group in groups:
            repeats += _repeats(group)
            scores = (group["pos_scores"] or []) + (group["neg_scores"] or [])
            flat += group["graded"] and len(set(scores)) < 2
            total += 1
            yield group
        self._note_repeats(repeats)
        if flat and self.shape == "candidate_group":
            self._note(
                f"{flat} of {total} queries have documents of one relevance only; losses that "
                "compare documents learn nothing from them"
            )

    def _note_one_relevance(self, rows: int, relevances: set[float]) -> None:
        if rows > 1 and len(relevances) == 1:
            self._note(f"all {rows} rows have the relevance {relevances.pop():g}")

    def _note_repeats(self, groups: int) -> None:
        if groups and self.shape == "candidate_group":
            self._note(
                f"{groups} queries have a document more than once; it is one candidate, with the "
                "highest of its relevances"
            )

    def _note_labels_and_fields(self) -> None:
        if count := self.parser.labels.by_default:
            self._note(
                f"{count} labels mapped by the default label_map {json.dumps(DEFAULT_LABEL_MAP)}; "
                "give label_map or label_range to change that"
            )
        if count := self.parser.scored_positives:
            self._note(
                f"{count} rows have several positives with scores and no negatives: all count "
                "as positives; if the scores tell which are (sentence-transformers' labeled-list), "
                'give columns: {"<the texts>": "doc", "scores": "rel"}'
            )
        for (file, name), count in self.parser.suspicious.most_common(20):
            self._note(f"{file}: the field {name} is not used ({count} times)")
        said = {name for _, name in self.parser.suspicious}
        others = [item for item in self.parser.unused.most_common(20) if item[0] not in said]
        if others:
            names = ", ".join(f"{name} ({count} times)" for name, count in others)
            self._note(f"fields that are not used: {names}", logging.INFO)

    def _note(self, text: str, level: int = logging.WARNING) -> None:
        self.notes.append((level, text))


def _repeats(group: dict[str, Any]) -> bool:
    documents = group["pos"] + group["neg"]
    return len(set(documents)) < len(documents)
