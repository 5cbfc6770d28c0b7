"""Dataset and sampler determined by (seed, epoch, row), and by nothing else."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

logger = logging.getLogger(__name__)


class EpochRows(Dataset[dict[str, Any]]):
    """A dataset whose rows know their own number and the epoch, by which negatives are drawn.

    Index ``epoch * len(rows) + row`` gives row ``row`` with ``{"row": row, "epoch": epoch}``
    added. The epoch travels in the index because a dataloader worker has a copy of the dataset, on
    which nothing that is set later arrives.

    Args:
        rows: Indexed from 0.
        digest: Of their content.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], digest: str = "") -> None:
        self.rows, self.digest = rows, digest

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch, row = divmod(index, len(self.rows))
        return {**self.rows[row], "row": row, "epoch": epoch}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each row once; by index alone Python would go on with the next epoch for ever."""
        return (self[row] for row in range(len(self)))

    def counts(self) -> list[int]:
        """The number of rows of each source."""
        return [len(self)]

    def digests(self) -> list[str]:
        """A digest of the content of each source."""
        return [self.digest]

    def rows_per_epoch(self, rows_per_step: int) -> int:
        """How many rows an epoch has; arguments as for ``sampler``."""
        return len(self)

    def sampler(self, seed: int, rows_per_step: int) -> "EpochSampler":
        """The order of training.

        Args:
            seed: The run's ``data_seed`` or ``seed``.
            rows_per_step: Rows of an optimiser step, over all processes and accumulated batches.
        """
        return EpochSampler(len(self), seed)


def as_epoch_rows(rows: Any) -> EpochRows:
    """Rows as ``EpochRows``; those that are stay as they are."""
    return rows if isinstance(rows, EpochRows) else EpochRows(rows)


class EpochSampler(Sampler[int]):
    """A fresh order of all rows in each epoch: a function of (seed, epoch).

    Args:
        size: Number of rows.
        seed: The run's ``data_seed`` or ``seed``.

    Raises:
        ValueError: The seed is negative.
    """

    def __init__(self, size: int, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"data_seed: must be at least 0, got {seed}")
        self.size, self.seed, self.epoch = size, seed, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        seed = (self.seed * 1_000_003 + self.epoch) % 2**64  # more is refused by torch
        random = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.size, generator=random) + self.epoch * self.size
        for rows in order.split(1 << 16):  # a list of all would take five times their memory
            yield from rows.tolist()


class EpochCallback(TrainerCallback, ExportableState):
    """Set the sampler's epoch; ``set_epoch`` may not reach it through a wrapped dataloader.

    Checkpoints keep the numbers of rows and digests, so that a run resumed on other data can warn.

    Args:
        sampler: Of training.
        rows: To train on.
        evaluation: The ``EpochRows`` of ``eval_file``, if there are any.
    """

    def __init__(self, sampler: EpochSampler, rows: EpochRows, evaluation: Any = None) -> None:
        self.sampler, self.counts, self.digests = sampler, rows.counts(), rows.digests()
        self.saved_counts, self.saved_digests = self.counts, self.digests
        self.evaluation = None if evaluation is None else evaluation.digests()
        self.saved_evaluation = self.evaluation

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, and a resumed run finds in this callback."""
        saved = {"saved_counts": self.counts, "saved_digests": self.digests}
        return {"args": {}, "attributes": {**saved, "saved_evaluation": self.evaluation}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        if self.saved_counts != self.counts:
            logger.warning(
                "resume_from_checkpoint: the run had %s training rows and now has %s: the "
                "remaining steps take them in another order; the result matches neither run",
                _listed(self.saved_counts), _listed(self.counts),
            )  # fmt: skip
        elif self.saved_digests != self.digests:
            logger.warning(
                "resume_from_checkpoint: the training rows are as many as the run had, but not the "
                "same; the result matches neither run"
            )
        if self.saved_evaluation and self.evaluation and self.saved_evaluation != self.evaluation:
            logger.warning(
                "resume_from_checkpoint: the rows of eval_file are not those that the run had: "
                "figures from before, and a best model chosen by them, are of other rows"
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.sampler.epoch = int(state.epoch or 0)


def _listed(counts: list[int]) -> str:
    return " + ".join(f"{count:,}" for count in counts)
