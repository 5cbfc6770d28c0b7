"""Convert rows of any form to a file of another: survey what would be lost, then write."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from common.hashing import text_hash
from loaders.build import ROWS, Build
from loaders.formats.records import check_format
from loaders.formats.row_file import TABLES, RowFile
from loaders.parsing.row_stream import LocatedRow, RowStream
from loaders.shapes.rows import CandidateGroup, PositivePair, Row, ScoredPair, Shape

Target = Literal["scored", "pairs", "groups", "hits", "tsv", "beir"]

# The shape in which rows are read for a form, and all columns that it may have, in order.
_FORMS: dict[Target, tuple[Shape, tuple[str, ...]]] = {
    "scored": ("scored_pair", ("query", "doc", "rel", "weight", "key", "prompt")),
    "tsv": ("scored_pair", ("query", "doc", "rel")),
    "pairs": ("positive_pair", ("query", "pos_doc", "negatives", "prompt")),
    "groups": ("candidate_group", ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt")),
    "hits": ("candidate_group", ("query", "hits", "prompt")),
}
_MOST_RELEVANCES = 10_000  # that are remembered


class Survey:
    """Count what rows hold before they are converted.

    Args:
        rows: All rows, perhaps wrapped in a progress bar.
        target: The form they are to have: rows of one of the shapes, ``tsv`` (query, document,
            relevance without a header) or ``beir``.
        table: "csv" or "tsv" where the file's cells hold no lists, else "".
        positive_threshold: The least relevance of a positive.

    Attributes:
        counts: What was met: "rows", "weights", "keys", "prompts", "teacher", "grades" (relevances
            other than 0 and 1), "negatives", "spaces" (texts with a tab or a line break),
            "empty prompts", "queries without positive".
        relevances: Of those between 0 and 1, how often each was met; the first 10,000 of them.
        has_scores: Whether groups need scores to say all that is known of relevances.

    Raises:
        ValueError: If the target would mix what cannot be told apart again.
    """

    def __init__(
        self, rows: Iterable[LocatedRow], target: Target, table: str, positive_threshold: float
    ) -> None:
        self.target = target
        self.table = table
        self.positive_threshold = positive_threshold
        self.counts: Counter[str] = Counter()
        # Of scored pairs, 9 bytes each: the query, and whether the document is a positive.
        self.queries = array("Q")
        self.positive = array("B")
        self.relevances: Counter[float] = Counter()
        for located in rows:
            self._add(located.row)
        queries = np.frombuffer(self.queries, dtype=np.uint64)
        positive = np.frombuffer(self.positive, dtype=np.uint8).astype(bool)
        without = len(np.unique(queries)) - len(np.unique(queries[positive]))
        self.counts["queries without positive"] += without
        self.counts["negatives"] += int((~positive).sum())
        self.has_scores = bool(self.counts["grades"] or self.counts["queries without positive"])
        if target == "groups" and self.has_scores and self.counts["teacher"]:
            raise ValueError(
                f"{self.counts['teacher']} rows have scores of a teacher and others have "
                "relevances, and groups have one field for both; convert the files one by one, or "
                "take the scores for relevances (--relevance_from_scores)"
            )

    def _add(self, row: Row) -> None:
        counts = self.counts
        counts["rows"] += 1
        counts["prompts"] += row.prompt is not None
        counts["empty prompts"] += row.prompt == ""
        relevances: list[float] = []
        if isinstance(row, ScoredPair):
            texts, relevances = [row.doc], [row.rel]
            counts["weights"] += row.weight != 1
            counts["keys"] += row.key is not None
            self.queries.append(text_hash(row.query, row.prompt))
            self.positive.append(row.rel >= self.positive_threshold)
        elif isinstance(row, PositivePair):
            texts = [row.pos_doc, *row.negatives]
            counts["negatives"] += len(row.negatives)
        else:
            texts = row.pos + row.neg
            counts["negatives"] += len(row.neg)
            if row.graded:
                relevances = row.relevances()
                counts["queries without positive"] += not row.pos
            else:
                counts["teacher"] += bool(row.pos_scores or row.neg_scores)
        for relevance in relevances:
            if relevance not in (0, 1):
                counts["grades"] += 1
                if relevance in self.relevances or len(self.relevances) < _MOST_RELEVANCES:
                    self.relevances[relevance] += 1
        if self.table == "tsv":
            texts = [*texts, row.query, *([row.prompt] if row.prompt else [])]
            counts["spaces"] += sum(any(c in text for c in "\t\r\n") for text in texts)

    def lost(self, unused: Counter[str]) -> list[str]:
        """List what the target cannot hold, a phrase with a count each; ``unused`` fields first."""
        target = self.target
        phrases: dict[str, str] = {}  # name of a count -> what is lost
        if target != "scored":
            phrases["weights"] = "the weights of {} rows"
            phrases["keys"] = "the keys of {} rows"
        if target in ("tsv", "beir"):
            phrases["prompts"] = "the prompts of {} rows"
        elif self.table:
            phrases["empty prompts"] = "the prompts of {} rows, which are empty texts"
        if target != "groups":
            phrases["teacher"] = (
                "the scores of {} rows, which are a teacher's and not relevances "
                "(unless you give --relevance_from_scores)"
            )
        if target == "pairs":
            from_on = f"positive from {self.positive_threshold:g} on"
            phrases["grades"] = f"{{}} relevances between 0 and 1: {from_on}"
            phrases["queries without positive"] = (
                "{} queries without a positive, with all their documents"
            )
            if self.table:
                phrases["negatives"] = "{} negatives, as a table holds no lists"
        phrases["spaces"] = "tabs and line breaks of {} texts, which become spaces"
        fields = [f"the field {name}, {times} times" for name, times in unused.most_common()]
        counted = [(self.counts[name], phrase) for name, phrase in phrases.items()]
        return fields + [phrase.format(count) for count, phrase in counted if count]


def table_of(target: Target, output: Path) -> str:
    """Return "csv" or "tsv" if a file is a table, whose cells hold no lists, else "".

    Raises:
        ValueError: If its format is unknown, or cannot hold the target.
    """
    suffix = check_format(output)
    table = TABLES.get(suffix, "")
    if target in ("groups", "hits") and table:
        raise ValueError(
            f"{output}: {target} hold lists, and a table has no place for them; "
            "give .jsonl, .json or .parquet"
        )
    if target == "tsv" and table != "tsv":
        raise ValueError(f"{output}: --to tsv writes .tsv or .txt files")
    return table


def convert(stream: RowStream, survey: Survey, output: Path, staging: Path) -> Iterator[None]:
    """Write the rows to one file; yield after each record.

    Args:
        stream: The rows to convert.
        survey: Of the same rows; it says what they become, and which columns are needed.
        output: The file; its suffix is its format.
        staging: An empty folder for the rows on their way.
    """
    shape, _ = _FORMS[survey.target]
    kind = ScoredPair if shape == "scored_pair" else CandidateGroup
    Build(stream.sources, shape, stream.options, staging).run()
    columns = _columns(survey)
    with RowFile(output, columns, header=survey.target != "tsv") as file:
        for fields in Dataset.from_file(str(staging / ROWS)):
            for record in _records(kind(**fields), survey):
                file.write({name: record[name] for name in columns})
                yield
        if not file.rows:
            raise ValueError("no row is left to write: no query has a positive")


def _columns(survey: Survey) -> list[str]:
    """Return the columns of the target form that these rows need."""
    counts = survey.counts
    scores = survey.has_scores or counts["teacher"]
    needed = {
        "weight": counts["weights"],
        "key": counts["keys"],
        "prompt": counts["prompts"],
        "negatives": not survey.table,
        "pos_scores": scores,
        "neg_scores": scores,
    }
    return [name for name in _FORMS[survey.target][1] if needed.get(name, True)]


def _records(row: ScoredPair | CandidateGroup, survey: Survey) -> Iterator[dict[str, Any]]:
    """Yield the target records of a row, with more fields than are written."""
    record = row._asdict()
    if isinstance(row, ScoredPair):
        yield record
    elif survey.target == "pairs":
        for pos_doc in row.pos:
            yield record | {"pos_doc": pos_doc, "negatives": row.neg or None}
    elif survey.target == "hits":
        judged = zip(row.pos + row.neg, row.relevances(), strict=True)
        yield record | {"hits": [{"content": text, "label": label} for text, label in judged]}
    else:
        if survey.has_scores:
            relevances, at = row.relevances(), len(row.pos)
            record |= {"pos_scores": relevances[:at], "neg_scores": relevances[at:]}
        elif row.graded:  # 1 and 0, which need not be said
            record |= {"pos_scores": None, "neg_scores": None}
        yield record
