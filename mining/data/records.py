"""Write rows as groups: with negatives that were mined, and with scores."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from scipy.special import expit
from tqdm import tqdm

from loaders.formats.row_file import RowFile
from mining.teacher import Teacher

Scale = Literal["raw", "sigmoid"]
Rows = list[dict[str, Any]]
Texts = tuple[list[str], list[str]]  # negatives and positives
# For rows of given numbers and the groups made of them: a score of each document, ``pos`` before
# ``neg``, group after group. It may move documents within a group.
Score = Callable[[range, Rows, Rows], list[float]]

_SLICE = 256
_DIGITS = 6  # of a model's score that is written


class Survey:
    """Counts of what rows hold, taken before anything is written.

    Attributes:
        counts: "rows", "negatives", "prompts", "teacher" (rows with a teacher's scores), "grades"
            (rows with relevances between 0 and 1), "without positive".
    """

    def __init__(self, rows: Dataset) -> None:
        self.counts: Counter[str] = Counter(rows=len(rows))
        for row in rows:
            scores = (row["pos_scores"] or []) + (row["neg_scores"] or [])
            self.counts["negatives"] += len(row["neg"])
            self.counts["prompts"] += row["prompt"] is not None
            self.counts["without positive"] += not row["pos"]
            self.counts["teacher"] += bool(scores) and not row["graded"]
            self.counts["grades"] += row["graded"] and not {0.0, 1.0}.issuperset(scores)

    @property
    def graded(self) -> bool:
        """Whether relevances say more than that a document is in ``pos`` or in ``neg``."""
        return bool(self.counts["grades"] or self.counts["without positive"])

    def lost(self, keep: bool, judged: bool) -> list[str]:
        """List what the new rows will lose, one phrase each."""
        negatives, taught, grades = (
            self.counts[name] for name in ("negatives", "teacher", "grades")
        )
        found = []
        if negatives and not keep:
            found.append(f"{negatives:,} negatives, replaced")
        if taught:
            why = "replaced" if judged else "as mined negatives have none (--reranker gives them)"
            found.append(f"the teacher's scores of {taught:,} rows, {why}")
        if grades and judged:
            found.append(
                f"the relevances between 0 and 1 of {grades:,} rows, as the reranker's scores take "
                "their place"
            )
        return found


def make_groups(
    rows: Dataset,
    score: Score | None,
    keep: bool = True,
    mined: Callable[[range], list[Texts]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the rows as groups, in their order.

    Args:
        rows: Of the shape ``candidate_group``.
        score: Gives ``pos_scores`` and ``neg_scores``; None: there are none.
        keep: Whether negatives that are there stay, before the mined ones.
        mined: Returns the mined negatives of rows by their numbers, and mined positives; None:
            nothing was mined.
    """
    for start in range(0, len(rows), _SLICE):
        numbers = range(start, min(start + _SLICE, len(rows)))
        some = [rows[at] for at in numbers]
        new: list[Texts] = mined(numbers) if mined else [([], []) for _ in numbers]
        groups = [
            {
                "query": row["query"],
                "pos": row["pos"] + positives,
                "neg": (row["neg"] if keep else []) + negatives,
            }
            for row, (negatives, positives) in zip(some, new, strict=True)
        ]
        if score is not None:
            scores = iter(score(numbers, some, groups))
            for group in groups:
                for side in ("pos", "neg"):
                    group[f"{side}_scores"] = [next(scores) for _ in group[side]]
        for row, group in zip(some, groups, strict=True):
            yield group | {"prompt": row["prompt"]}


@dataclass
class TeacherScores:
    """Scores groups by a reranker.

    Args:
        scale: Of the scores that are written.
        relabel_from: Negatives that score so much or more, from 0 to 1, become positives; None:
            none do.

    Attributes:
        relabelled: How many did so far.
    """

    teacher: Teacher
    scale: Scale
    relabel_from: float | None = None
    relabelled: int = 0

    def __call__(self, _: range, rows: Rows, groups: Rows) -> list[float]:
        """The scores of the groups' documents, in the order in which they then are."""
        pairs = [
            self.teacher.pair(row["query"], row["prompt"], document)
            for row, group in zip(rows, groups, strict=True)
            for document in group["pos"] + group["neg"]
        ]
        raw = self.teacher.score(pairs)
        from_0_to_1 = expit(raw)
        written = from_0_to_1 if self.scale == "sigmoid" else raw
        scores = iter(zip(written.tolist(), from_0_to_1.tolist(), strict=True))
        found: list[float] = []
        for group in groups:
            pos = [(text, *next(scores)) for text in group["pos"]]
            neg = [(text, *next(scores)) for text in group["neg"]]
            if self.relabel_from is not None:
                moved = [each for each in neg if each[2] >= self.relabel_from]
                neg = [each for each in neg if each[2] < self.relabel_from]
                pos += moved
                self.relabelled += len(moved)
                group["pos"], group["neg"] = ([text for text, *_ in side] for side in (pos, neg))
            found += [score for _, score, _ in pos + neg]
        return rounded(found)


def relevances(keep: bool) -> Score:
    """Return what gives documents their relevances: their own, else 1 and 0; mined ones 0."""

    def score(_: range, rows: Rows, groups: Rows) -> list[float]:
        found: list[float] = []
        for row, group in zip(rows, groups, strict=True):
            kept = len(row["neg"]) if keep else 0
            pos, neg = [1.0] * len(row["pos"]), [0.0] * kept
            if row["graded"]:
                pos, neg = row["pos_scores"] or [], (row["neg_scores"] or [])[:kept]
            found += [*pos, *neg, *[0.0] * (len(group["neg"]) - kept)]
        return found

    return score


def rounded(scores: Iterable[float]) -> list[float]:
    """Return a model's scores as they are written."""
    return [round(score, _DIGITS) for score in scores]


def write_groups(
    path: Path,
    groups: Iterable[dict[str, Any]],
    survey: Survey,
    scored: bool,
    show_progress: bool,
) -> None:
    """Write the groups of the rows that ``survey`` was made of."""
    columns = ["query", "pos", "neg"]
    columns += ["pos_scores", "neg_scores"] if scored else []
    columns += ["prompt"] if survey.counts["prompts"] else []
    with RowFile(path, columns) as file:
        for group in tqdm(groups, "writing", survey.counts["rows"], disable=not show_progress):
            file.write(group)
