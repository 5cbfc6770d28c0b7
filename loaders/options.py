"""Options of reading data files."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loaders.parsing.columns import check_columns

# RAG-Retrieval's grades, for `query \t doc \t label` files without a header.
DEFAULT_LABEL_MAP = {"3": 1.0, "2": 0.75, "1": 0.5, "0": 0.25}


@dataclass(frozen=True)
class ReadOptions:
    """How records become rows.

    Args:
        label_map: The relevance of each label, ``{"good": 1, "bad": 0}``; a row with any other
            label is bad. Without it, labels are numbers, with one exception: a CSV or TSV file
            that has no header, and whose first label is one of 0, 1, 2, 3, is read by
            ``DEFAULT_LABEL_MAP`` (unless there is a ``label_range``), which is logged.
        label_range: Lowest and highest label where the scale is not [0, 1], such as (0, 5);
            mapped linearly to [0, 1].
        relevance_from_scores: A group's ``pos_scores`` and ``neg_scores`` (after ``label_range``)
            are the relevances of its documents, which are split anew into positives and
            negatives. Otherwise they are a teacher's scores on any scale, kept unchanged, and
            the relevances are 1 for ``pos`` and 0 for ``neg``.
        positive_threshold: The lowest relevance of a positive, where groups are made from
            relevances.
        columns: Which column is which field, ``{"question": "query", "answers.text": "pos"}``;
            see ``loaders.parsing.columns``.
        split: The split to read, of folders and data sets with several.
        evaluates: The rows are not trained on: a folder whose only split is a test split is read
            without naming it.
        needs_negatives: The objective needs negatives: a row without any is bad.
        needs_scores: The objective needs a teacher's scores: a group without them is bad.
        on_bad_rows: "error" stops with a list of the bad rows, "skip" leaves them out.
        rejected_file: Where all bad rows are written, as JSON Lines of ``file``, ``line``,
            ``reason``, ``record``. Those of an earlier reading are replaced; no other file is.

    Raises:
        ValueError: If a value is invalid.
    """

    label_map: dict[str, float] | None = None
    label_range: tuple[float, float] | None = None
    relevance_from_scores: bool = False
    positive_threshold: float = 0.5
    columns: dict[str, str] | None = None
    split: str | None = None
    evaluates: bool = False
    needs_negatives: bool = False
    needs_scores: bool = False
    on_bad_rows: Literal["error", "skip"] = "error"
    rejected_file: Path | None = None

    def __post_init__(self) -> None:
        if self.label_map is not None and self.label_range is not None:
            raise ValueError("label_map and label_range are both given; labels need only one")
        check_columns(self.columns or {})
        for label, relevance in (self.label_map or {}).items():
            if not 0 <= relevance <= 1:
                raise ValueError(f'label_map gives "{label}" {relevance}; it must be in [0, 1]')
        if self.label_range is not None:
            low, high = self.label_range
            if not (math.isfinite(high - low) and low < high):
                raise ValueError(f"label_range is ({low}, {high}); give (lowest, highest)")
        if not 0 < self.positive_threshold <= 1:
            raise ValueError(f"positive_threshold is {self.positive_threshold}, not in (0, 1]")
        if self.on_bad_rows not in ("error", "skip"):
            raise ValueError(f'on_bad_rows is "{self.on_bad_rows}"; give "error" or "skip"')
        if self.rejected_file is not None and not _is_free(self.rejected_file):
            raise ValueError(
                f"rejected_file: {self.rejected_file} already exists and is not a list of bad "
                "rows of an earlier reading; give another name"
            )


def _is_free(file: Path) -> bool:
    """Whether bad rows may be written to a file, or their absence remove it."""
    try:
        with file.open("rb") as stream:
            line = stream.readline()
        names = {"file", "line", "reason", "record"}
        return not line or bool(json.loads(line).keys() == names)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError):
        return False
