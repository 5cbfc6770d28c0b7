"""Batches of one source each, where a run has several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Collator = Callable[[list[dict[str, Any]]], dict[str, Any]]


@dataclass
class SourceCollator:
    """Rows of one source to a batch of the source's own collator.

    The batch has ``source`` beside the tensors, the number of the source. Rows without a source,
    which are those of evaluation, are for the run's own collator, and have the number after the
    last.

    Args:
        sources: The collator of each source.
        run: The run's own.
    """

    sources: Sequence[Collator]
    run: Collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch."""
        (source,) = {row.get("source", len(self.sources)) for row in rows}
        collator = [*self.sources, self.run][source]
        return {**collator(rows), "source": source}
