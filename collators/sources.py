"""Collate each batch by the settings of the source that its rows come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Collator = Callable[[list[dict[str, Any]]], dict[str, Any]]


@dataclass
class SourceCollator:
    """Rows of one source to a batch of that source's own collator.

    The batch has ``source`` beside the tensors, the number of the source. Rows without a source are
    those of evaluation: ``evaluation`` collates them, and their number is the one after the last.

    Args:
        sources: The collator of each source.
        evaluation: The collator of rows without a source.
    """

    sources: Sequence[Collator]
    evaluation: Collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch.

        Raises:
            ValueError: The rows are of several sources.
        """
        (source,) = {row.get("source", len(self.sources)) for row in rows}
        collator = [*self.sources, self.evaluation][source]
        return {**collator(rows), "source": source}
