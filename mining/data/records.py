"""Merge mined negatives and scores into the records to write."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import Dataset

from mining.blocks import Blocks
from mining.data.corpus import Corpus
from mining.data.queries import Queries
from mining.scoring.teacher import Teacher, sigmoid

Scale = Literal["raw", "sigmoid"]

_SLICE = 256
DIGITS = 6  # of a score that is written


@dataclass(frozen=True)
class Survey:
    """Counts of what rows hold, taken before anything is written.

    Args:
        counts: "negatives", "prompts", "teacher" (rows with a teacher's scores), "grades" (rows
            with relevances between 0 and 1), "without positive".
    """

    counts: Counter[str]

    @classmethod
    def of(cls, rows: Dataset) -> "Survey":
        """Count over all rows."""
        counts: Counter[str] = Counter()
        for row in rows:
            scores = (row["pos_scores"] or []) + (row["neg_scores"] or [])
            counts["negatives"] += len(row["neg"])
            counts["prompts"] += row["prompt"] is not None
            counts["without positive"] += not row["pos"]
            counts["teacher"] += bool(scores) and not row["graded"]
            counts["grades"] += row["graded"] and not {0.0, 1.0}.issuperset(scores)
        return cls(counts)

    @property
    def graded(self) -> bool:
        """Whether relevances say more than that a document is in ``pos`` or in ``neg``."""
        return bool(self.counts["grades"] or self.counts["without positive"])

    def lost(self, keep: bool, judged: bool) -> list[str]:
        """List what the new rows will lose, one phrase each."""
        counts = self.counts
        teacher = f"the teacher's scores of {counts['teacher']:,} rows"
        found = [
            (0 if keep else counts["negatives"], f"{counts['negatives']:,} negatives, replaced"),
            (
                counts["teacher"],
                f"{teacher}, replaced"
                if judged
                else f"{teacher}, as mined negatives have none (--reranker gives them)",
            ),
            (
                counts["grades"] if judged else 0,
                f"the relevances between 0 and 1 of {counts['grades']:,} rows, as the "
                "reranker's scores take their place",
            ),
        ]
        return [phrase for count, phrase in found if count]


@dataclass
class Records:
    """The rows in their order, each with the negatives of its query.

    Scores are the reranker's, if there is one. Otherwise they are the relevances where these say
    more than ``pos`` and ``neg`` do; a mined negative's is 0.

    Args:
        rows: The rows.
        queries: Theirs.
        corpus: Where negatives come from.
        blocks: What was mined.
        keep: Whether negatives that are there stay, before the mined ones.
        graded: Whether relevances are written.
        teacher: The reranker, or None.
        scale: Of the reranker's scores.
    """

    rows: Dataset
    queries: Queries
    corpus: Corpus
    blocks: Blocks
    keep: bool
    graded: bool
    teacher: Teacher | None
    scale: Scale

    @property
    def has_scores(self) -> bool:
        """Whether records have ``pos_scores`` and ``neg_scores``."""
        return self.teacher is not None or self.graded

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self.rows), _SLICE):
            rows = [self.rows[at] for at in range(start, min(start + _SLICE, len(self.rows)))]
            mined = self._texts(range(start, start + len(rows)))
            kept = [row["neg"] if self.keep else [] for row in rows]
            records = [
                {"query": row["query"], "pos": row["pos"], "neg": old + new}
                for row, old, new in zip(rows, kept, mined, strict=True)
            ]
            if self.teacher is not None:
                add_scores(self.teacher, rows, records, self.scale)
            elif self.graded:
                for row, record, old in zip(rows, records, kept, strict=True):
                    _add_relevances(row, record, len(old))
            for row, record in zip(rows, records, strict=True):
                yield record | {"prompt": row["prompt"]}

    def _texts(self, rows: range) -> list[list[str]]:
        """Return the mined negatives of some rows."""
        found = [self.blocks[int(self.queries.query_of[row])].negatives for row in rows]
        texts = iter(self.corpus.at([each.place for negatives in found for each in negatives]))
        return [[next(texts) for _ in negatives] for negatives in found]


def add_scores(
    teacher: Teacher,
    rows: Sequence[dict[str, Any]],
    records: Sequence[dict[str, Any]],
    scale: Scale,
) -> None:
    """Add the reranker's scores to records; ``rows`` hold their prompts."""
    pairs = [
        teacher.pair(row["query"], row["prompt"], document)
        for row, record in zip(rows, records, strict=True)
        for document in record["pos"] + record["neg"]
    ]
    scores = teacher.score(pairs)
    found = iter((sigmoid(scores) if scale == "sigmoid" else scores).tolist())
    for record in records:
        for side in ("pos", "neg"):
            record[f"{side}_scores"] = [round(next(found), DIGITS) for _ in record[side]]


def _add_relevances(row: dict[str, Any], record: dict[str, Any], kept: int) -> None:
    """Add relevances to a record: the row's own, else 1 and 0; 0 for mined negatives."""
    pos, neg = [1.0] * len(row["pos"]), [0.0] * kept
    if row["graded"]:
        pos, neg = row["pos_scores"] or [], (row["neg_scores"] or [])[:kept]
    record["pos_scores"] = pos
    record["neg_scores"] = neg + [0.0] * (len(record["neg"]) - kept)
