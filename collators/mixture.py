"""Dataset, sampler and collator of several sources, each weighted as the recipe says."""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from collators.epochs import EpochRows, EpochSampler, as_epoch_rows

logger = logging.getLogger(__name__)

Collator = Callable[[list[dict[str, Any]]], dict[str, Any]]


class SourceRows(NamedTuple):
    """One source of a mixture.

    Args:
        name: In the log.
        rows: Its rows.
        weight: How often an epoch takes each of them.
        query_prompt: Put before the queries of rows that have no prompt of their own; None: the
            collator's.
    """

    name: str
    rows: Sequence[dict[str, Any]] | EpochRows
    weight: float = 1.0
    query_prompt: str | None = None


class MixtureRows(EpochRows):
    """The rows of all sources, one source after the other.

    A row has ``source`` added, the number of its source. Its ``row`` is its number there, and its
    ``epoch`` counts how often it has come before: a row that comes twice in an epoch of the run has
    other negatives drawn the second time.

    Args:
        sources: Their rows, weights and prompts.
        one_source: Whether all rows of a step are of one source.
    """

    def __init__(self, sources: Sequence[SourceRows], one_source: bool) -> None:
        self.sources = sources
        self.datasets = [as_epoch_rows(source.rows) for source in sources]
        self.one_source = one_source
        self.ends = np.cumsum(self.counts())

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        turn, at = divmod(index, len(self))
        source = int(np.searchsorted(self.ends, at, side="right"))
        rows = self.datasets[source]
        local = at - int(self.ends[source]) + len(rows)
        row = {**rows[turn * len(rows) + local], "source": source}
        prompt = self.sources[source].query_prompt
        if prompt is not None and row["prompt"] is None:
            row["prompt"] = prompt
        return row

    def counts(self) -> list[int]:
        """The number of rows of each source."""
        return [len(rows) for rows in self.datasets]

    def digests(self) -> list[str]:
        return [digest for rows in self.datasets for digest in rows.digests()]

    def rows_per_epoch(self, rows_per_step: int) -> int:
        """How many rows an epoch has, of all sources."""
        return len(self._make_sampler(0, rows_per_step))

    def _make_sampler(self, seed: int, rows_per_step: int) -> "MixtureSampler":
        block = rows_per_step if self.one_source else 1
        weights = [source.weight for source in self.sources]
        return MixtureSampler(self.counts(), weights, seed, block)

    def sampler(self, seed: int, rows_per_step: int) -> "MixtureSampler":
        """The order that a recipe's weights ask for; it is logged."""
        sampler = self._make_sampler(seed, rows_per_step)
        for source, rows, taken in zip(self.sources, self.counts(), sampler.taken, strict=True):
            logger.info(
                "%s: %d rows, weight %g: %d rows in an epoch (%.3g times each), %.1f %% of all",
                source.name, rows, source.weight, taken, taken / rows, 100 * taken / len(sampler),
            )  # fmt: skip
        return sampler


class MixtureSampler(EpochSampler):
    """Blocks of rows of one source each, in random order: a function of (seed, epoch).

    A source is an endless stream of passes over its rows, each in a fresh order, and every block
    takes those that come next. An epoch begins where the last one ended, so that no row comes twice
    before all others of its source have come once.

    Args:
        sizes: Rows of each source.
        weights: How often an epoch takes each row of a source, rounded to whole blocks, at least
            one.
        seed: The run's ``data_seed`` or ``seed``.
        block: Rows of a block: those of an optimiser step, over all processes and accumulated
            batches; 1 mixes the sources row by row.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float], seed: int, block: int
    ) -> None:
        self.sizes, self.block = sizes, block
        self.starts = [0, *itertools.accumulate(sizes)]
        self.taken = [
            max(1, round(weight * size / block)) * block
            for size, weight in zip(sizes, weights, strict=True)
        ]
        super().__init__(sum(self.taken), seed)

    def __iter__(self) -> Iterator[int]:
        streams = [self._stream(source) for source in range(len(self.sizes))]
        blocks = [taken // self.block for taken in self.taken]
        random = np.random.default_rng((self.seed, self.epoch, len(self.sizes)))
        for source in random.permutation(np.repeat(np.arange(len(blocks)), blocks)).tolist():
            yield from itertools.islice(streams[source], self.block)

    def _stream(self, source: int) -> Iterator[int]:
        """The stream of a source's rows, from where the last epoch left it."""
        size = self.sizes[source]
        first, begin = divmod(self.epoch * self.taken[source], size)
        for turn in itertools.count(first):
            order = np.random.default_rng((self.seed, turn, source)).permutation(size)
            for row in order[begin:].tolist():
                yield turn * self.starts[-1] + self.starts[source] + row
            begin = 0


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
