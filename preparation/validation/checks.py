"""Collect statistics and problems of the rows of a training file."""

from array import array
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.hashing import text_hash
from loaders.parsing.row_stream import LocatedRow
from loaders.shapes.conversions import judged_documents
from loaders.shapes.rows import CandidateGroup, PositivePair, ScoredPair
from preparation.duplicates.normalized import normalized_hash
from preparation.validation.lengths import Count, TextLengths

# Letters: R rows, J judged pairs (a query and one of its documents).

_SHAPES = {ScoredPair: "scored pairs", PositivePair: "positive pairs", CandidateGroup: "groups"}
_SHOWN = 20  # places of each kind of finding


@dataclass(frozen=True)
class Finding:
    """A problem: what it is, how often it occurs, and where first."""

    what: str
    count: int
    places: list[str]


class Examination:
    """Examination of the rows of one input, in some 40 bytes of memory a judged pair.

    Texts count as the same if they are so normalised; see ``normalize``.

    Args:
        count: Gives the lengths of texts.
        positive_threshold: The least relevance of a positive.

    Attributes:
        shapes: How many rows there are of each shape.
        prompts: How many rows have a prompt of their own.
        without_negatives: How many groups and positive pairs have no negative.
        queries: Lengths of the different queries.
        documents: Lengths of the different documents.
        teacher: Scores of groups that are no relevances.
    """

    def __init__(self, count: Count, positive_threshold: float) -> None:
        self.positive_threshold = positive_threshold
        self.shapes: Counter[str] = Counter()
        self.prompts = self.without_negatives = 0
        self.queries, self.documents = TextLengths(count), TextLengths(count)
        self.teacher = array("d")
        self.files: list[str] = []
        # [R]: number of the file, line, hash of all the row says
        self._file, self._line, self._row = array("I"), array("Q"), array("Q")
        self._repeats = array("Q")  # rows that list a document twice
        # [J]
        self._query, self._document = array("Q"), array("Q")
        self._relevance, self._row_of = array("d"), array("Q")

    def add(self, located: LocatedRow) -> None:
        """Examine one row."""
        row = located.row
        if not self.files or self.files[-1] != located.file:
            self.files.append(located.file)
        number = len(self._row)
        self._file.append(len(self.files) - 1)
        self._line.append(located.record.line)
        self.shapes[_SHAPES[type(row)]] += 1
        self.prompts += row.prompt is not None
        query = normalized_hash(row.query)
        self.queries.add(query, (row.prompt or "") + row.query)
        judged: Counter[tuple[int, float]] = Counter()
        for document, relevance in judged_documents(row):
            key = normalized_hash(document)
            self.documents.add(key, document)
            judged[key, relevance] += 1
            self._query.append(query)
            self._document.append(key)
            self._relevance.append(relevance)
            self._row_of.append(number)
        if max(judged.values()) > 1:
            self._repeats.append(number)
        self._row.append(text_hash(str(query), row.prompt, str(sorted(judged.items()))))
        if not isinstance(row, ScoredPair):
            negatives = row.negatives if isinstance(row, PositivePair) else row.neg
            self.without_negatives += not negatives
        if isinstance(row, CandidateGroup) and not row.graded:
            self.teacher.extend((row.pos_scores or []) + (row.neg_scores or []))

    @property
    def rows(self) -> int:
        """The number of rows examined."""
        return len(self._row)

    def relevances(self) -> NDArray[np.float64]:
        """The relevance of each judged pair [J]; 1 and 0 where rows have no grades."""
        return np.frombuffer(self._relevance, dtype=np.float64)

    def _judged(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """The key of the query and of the document of each judged pair: [J], [J]."""
        return np.frombuffer(self._query, np.uint64), np.frombuffer(self._document, np.uint64)

    def pair_lengths(self) -> NDArray[np.int64]:
        """The length of each judged pair [J], query and document together."""
        query, document = self._judged()
        return self.queries.of(query) + self.documents.of(document)

    def per_row(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of positives and of negatives of each row: [R], [R]."""
        row_of = np.frombuffer(self._row_of, dtype=np.uint64).astype(np.int64)
        positive = self.relevances() >= self.positive_threshold
        counts = [
            np.bincount(row_of[which], minlength=self.rows) for which in (positive, ~positive)
        ]
        return counts[0], counts[1]

    def texts(self, part: str) -> NDArray[np.uint64]:
        """The distinct keys of ``queries``, ``documents``, ``positives`` or ``pairs``."""
        query, document = self._judged()
        if part == "queries":
            return np.unique(query)
        if part == "documents":
            return np.unique(document)
        if part == "positives":
            return np.unique(document[self.relevances() >= self.positive_threshold])
        return np.unique(_pair_keys(query, document))

    def findings(self) -> list[Finding]:
        """List all problems."""
        found = [*self._contradictions(), self._repeated_rows(), self._repeated_documents()]
        return [finding for finding in found if finding.count]

    def _contradictions(self) -> list[Finding]:
        """Find pairs with contradictory relevances: across the threshold, or on one side of it."""
        query, document = self._judged()
        pairs = _pair_keys(query, document)
        order = np.lexsort((self.relevances(), pairs))  # the lowest relevance of a pair first
        relevances, pairs = self.relevances()[order], pairs[order]
        begins = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1]]))
        ends = np.append(begins[1:], len(pairs)) - 1
        low, high = relevances[begins], relevances[ends]
        threshold = self.positive_threshold
        both = (low < threshold) & (high >= threshold)
        row_of = np.frombuffer(self._row_of, dtype=np.uint64)[order].astype(np.int64)
        found = []
        for what, which in (
            ("a document is positive and negative for the same query", both),
            ("a document has different relevances for the same query", (low != high) & ~both),
        ):
            at = np.flatnonzero(which)
            rows = np.stack([row_of[begins[at]], row_of[ends[at]]], axis=1)
            rows = rows[np.argsort(rows.max(axis=1), kind="stable")]
            places = [self._places(pair.tolist()) for pair in rows[:_SHOWN]]
            found.append(Finding(what, len(at), places))
        return found

    def _repeated_rows(self) -> Finding:
        hashes = np.frombuffer(self._row, dtype=np.uint64)
        _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        repeated = np.flatnonzero(first[inverse] != np.arange(len(hashes)))
        places = [self._places([int(first[inverse[row]]), int(row)]) for row in repeated[:_SHOWN]]
        return Finding("a row repeats an earlier one", len(repeated), places)

    def _repeated_documents(self) -> Finding:
        places = [self._places([row]) for row in self._repeats[:_SHOWN]]
        return Finding("a row has the same document twice", len(self._repeats), places)

    def _places(self, rows: list[int]) -> str:
        """Format rows as ``file:line``, in order; the file is named once if it is the same."""
        places: list[str] = []
        for at, row in enumerate(sorted(set(rows))):
            file, line = self.files[self._file[row]], self._line[row]
            same = at > 0 and self._file[row] == self._file[min(rows)]
            places.append(f":{line}" if same else f"{file}:{line}")
        return " and ".join(places)


def _pair_keys(query: NDArray[np.uint64], document: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Combine query and document keys [J] into pair keys, modulo 2**64."""
    keys: NDArray[np.uint64] = query * np.uint64(0x9E3779B97F4A7C15) ^ document
    return keys


def count_shared(one: Examination, other: Examination, part: str) -> int:
    """Count the distinct queries, documents, positives or pairs that two inputs share."""
    return len(np.intersect1d(one.texts(part), other.texts(part), assume_unique=True))
