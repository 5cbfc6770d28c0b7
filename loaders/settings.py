"""Settings of commands that read rows; ``ReadOptions`` says more of each."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from common.flags import Settings, option
from loaders.options import ReadOptions


@dataclass(kw_only=True)
class ReadingSettings(Settings):
    """Reading rows."""

    columns: dict[str, str] | None = option(
        None, 'Columns to fields: {"question": "query", "answers.text": "pos"}.'
    )
    split: str | None = option(None, "Of folders and Hub data sets that have several.")
    label_map: dict[str, float] | None = option(
        None, 'Labels to relevances: {"good": 1, "bad": 0}.'
    )
    label_range: tuple[float, float] | None = option(
        None, "Lowest and highest of scores on another scale, such as 0 5; mapped to 0..1."
    )
    relevance_from_scores: bool = option(
        False,
        "Use a group's pos_scores and neg_scores as its relevances, not as a teacher's scores.",
    )
    positive_threshold: float = option(
        ReadOptions.positive_threshold, "The lowest relevance of a positive."
    )

    def read_options(self, **changes: Any) -> ReadOptions:
        """The options that the settings ask for, but for ``changes``."""
        given = {
            known.name: getattr(self, known.name)
            for known in fields(ReadOptions)
            if hasattr(self, known.name)
        }
        return ReadOptions(**given | changes)


@dataclass(kw_only=True)
class RowSettings(ReadingSettings):
    """Bad rows."""

    on_bad_rows: Literal["error", "skip"] = option(
        "error", "Stop with a list of the bad rows, or go on without them."
    )
    rejected_file: Path | None = option(None, "Where bad rows are written, with reasons.")
