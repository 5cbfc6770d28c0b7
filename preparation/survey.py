"""Survey rows for what a target form would lose, before anything is written."""

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np

from common.hashing import text_hash
from loaders.parsing.row_stream import LocatedRow
from loaders.shapes.rows import PositivePair, Row, ScoredPair

Target = Literal["scored", "pairs", "groups", "hits", "tsv", "beir"]

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
