"""Survey rows for what a target form would lose, before anything is written."""

from array import array
from collections import Counter
from typing import Literal

import numpy as np

from common.hashing import text_hash
from loaders.shapes.rows import CandidateGroup, PositivePair, Row, ScoredPair

Target = Literal["scored", "pairs", "groups", "hits", "tsv", "beir"]

_MOST_RELEVANCES = 10_000  # that are remembered


class Survey:
    """Count what rows hold before they are converted.

    Args:
        target: The form they are to have: rows of one of the shapes, ``tsv`` (query, document,
            relevance without a header) or ``beir``.
        table: "csv" or "tsv" where the file's cells hold no lists, else "".
        positive_threshold: The least relevance of a positive.

    Attributes:
        counts: What was met: "rows", "weights", "keys", "prompts", "teacher", "grades" (relevances
            other than 0 and 1), "negatives", "spaces" (texts with a tab or a line break),
            "empty prompts", "groups without positive".
        relevances: Of those between 0 and 1, how often each was met; the first 10,000 of them.
        has_scores: Whether groups need scores to say all that is known of relevances.
    """

    def __init__(self, target: Target, table: str, positive_threshold: float) -> None:
        self.target = target
        self.table = table
        self.positive_threshold = positive_threshold
        self.counts: Counter[str] = Counter()
        # Of scored pairs, 9 bytes each: the query, and whether the document is a positive.
        self.queries = array("Q")
        self.positive = array("B")
        self.relevances: Counter[float] = Counter()
        self.has_scores = False

    def add(self, row: Row) -> None:
        """Count one row."""
        counts = self.counts
        counts["rows"] += 1
        counts["prompts"] += row.prompt is not None
        counts["empty prompts"] += row.prompt == ""
        if isinstance(row, ScoredPair):
            texts, relevances = [row.doc], [row.rel]
            counts["weights"] += row.weight != 1
            counts["keys"] += row.key is not None
            self.queries.append(text_hash(row.query, row.prompt))
            self.positive.append(row.rel >= self.positive_threshold)
        elif isinstance(row, PositivePair):
            texts, relevances = [row.pos_doc, *row.negatives], []
            counts["negatives"] += len(row.negatives)
        else:
            texts, relevances = row.pos + row.neg, self._add_group(row)
            counts["negatives"] += len(row.neg)
        for relevance in relevances:
            if relevance not in (0, 1):
                counts["grades"] += 1
                if relevance in self.relevances or len(self.relevances) < _MOST_RELEVANCES:
                    self.relevances[relevance] += 1
        if self.table == "tsv":
            texts = [*texts, row.query, *([row.prompt] if row.prompt else [])]
            counts["spaces"] += sum(any(c in text for c in "\t\r\n") for text in texts)

    def _add_group(self, group: CandidateGroup) -> list[float]:
        scores = (group.pos_scores or []) + (group.neg_scores or [])
        if not group.graded:
            self.counts["teacher"] += bool(scores)
            return []
        self.counts["groups without positive"] += not group.pos
        return scores

    def finish(self) -> None:
        """Derive totals, once all rows were added.

        Raises:
            ValueError: If the target would mix what cannot be told apart again.
        """
        without = self._queries_without_positive() + self.counts["groups without positive"]
        self.counts["queries without positive"] = without
        self.has_scores = bool(self.counts["grades"] or without)
        if self.target == "groups" and self.has_scores and self.counts["teacher"]:
            raise ValueError(
                f"{self.counts['teacher']} rows have scores of a teacher and others have "
                "relevances, and groups have one field for both; convert the files one by one, or "
                "take the scores for relevances (--relevance_from_scores)"
            )

    def _queries_without_positive(self) -> int:
        queries = np.frombuffer(self.queries, dtype=np.uint64)
        positive = np.frombuffer(self.positive, dtype=np.uint8).astype(bool)
        return len(np.unique(queries)) - len(np.unique(queries[positive]))

    def lost(self, unused: Counter[str]) -> list[str]:
        """List what the target cannot hold, a phrase with a count each; ``unused`` fields first."""
        counts, target = self.counts, self.target
        found: list[tuple[int, str]] = [
            (times, f"the field {name}, {times} times") for name, times in unused.most_common()
        ]
        if target != "scored":
            found.append((counts["weights"], f"the weights of {counts['weights']} rows"))
            found.append((counts["keys"], f"the keys of {counts['keys']} rows"))
        if target in ("tsv", "beir"):
            found.append((counts["prompts"], f"the prompts of {counts['prompts']} rows"))
        elif self.table:
            empty = counts["empty prompts"]
            found.append((empty, f"the prompts of {empty} rows, which are empty texts"))
        if target != "groups":
            teacher = counts["teacher"]
            found.append(
                (
                    teacher,
                    f"the scores of {teacher} rows, which are a teacher's and not relevances "
                    "(unless you give --relevance_from_scores)",
                )
            )
        if target == "pairs":
            found += self._lost_by_pairs()
        spaces = counts["spaces"]
        found.append((spaces, f"tabs and line breaks of {spaces} texts, which become spaces"))
        return [phrase for count, phrase in found if count]

    def _lost_by_pairs(self) -> list[tuple[int, str]]:
        counts, threshold = self.counts, self.positive_threshold
        without = counts["queries without positive"]
        grades = f"{counts['grades']} relevances between 0 and 1: positive from {threshold:g} on"
        found = [
            (counts["grades"], grades),
            (without, f"{without} queries without a positive, with all their documents"),
        ]
        if self.table:
            below = np.frombuffer(self.positive, dtype=np.uint8) == 0
            negatives = counts["negatives"] + int(below.sum())
            found.append((negatives, f"{negatives} negatives, as a table holds no lists"))
        return found
