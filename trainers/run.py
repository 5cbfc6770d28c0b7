"""Put a training run together: arguments, objective and sources, and the trainer they ask for."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collators.epochs import as_epoch_rows
from common.flags import read_values
from trainers.base import BaseTrainer
from trainers.config.arguments import TandemArguments, defaults
from trainers.config.task import (
    TrainingSource,
    TrainingTask,
    build_sources,
    check_kind,
    find_objective,
)
from trainers.contrastive import ContrastiveTrainer, compute_contrastive_loss
from trainers.multi_source import ComputeLoss, MultiSourceTrainer, SourceLoss
from trainers.reranker import RerankerTrainer, compute_reranker_loss
from trainers.similarity import SimilarityTrainer, compute_similarity_loss

USAGE = """Fine-tune an embedder or a reranker.

    accelerate launch scripts/train.py --config configs/reranker.json
    accelerate launch scripts/train.py --config configs/reranker.json --learning_rate 1e-4
"""

COMPUTE_LOSS: dict[type[BaseTrainer], ComputeLoss] = {
    ContrastiveTrainer: compute_contrastive_loss,
    SimilarityTrainer: compute_similarity_loss,
    RerankerTrainer: compute_reranker_loss,
}


@dataclass(frozen=True)
class Run(TrainingTask):
    """A run of ``scripts/train.py``: arguments, objective, and sources if there are several.

    Args:
        sources: Of ``train_files``; none for a run with one ``train_file``.
    """

    sources: list[TrainingSource]

    @property
    def one_source_per_step(self) -> bool:
        """Whether each step is of one source, with the objective and settings of the source."""
        return bool(self.sources) and self.args.batches_from == "one_source"

    def build_trainer(self, **given: Any) -> BaseTrainer:
        """The objective's trainer, or ``MultiSourceTrainer``.

        Args:
            given: What the trainer takes beside ``args`` and ``loss``: model, data, measure, ...
        """
        if not self.one_source_per_step:
            return self.objective.trainer(args=self.args, loss=self.build_loss(), **given)
        losses = [_source_loss(source.name, source) for source in self.sources]
        evaluation = _source_loss(None, self)
        return MultiSourceTrainer(
            args=self.args, loss=evaluation.loss, source_losses=[*losses, evaluation], **given
        )


def _source_loss(name: str | None, task: TrainingTask) -> SourceLoss:
    return SourceLoss(name, COMPUTE_LOSS[task.objective.trainer], task.build_loss())


def build_run(args: TandemArguments) -> Run:
    """Check arguments against their objective and sources.

    Raises:
        ValueError: A key, value or combination that cannot work, named in one sentence.
    """
    task = TrainingTask(args, find_objective(args))
    check_kind(task)
    return Run(args, task.objective, build_sources(task))


def parse_run(argv: Sequence[str] | None = None) -> Run:
    """Read ``--config recipe.json`` (or ``.yaml``) and flags, which win.

    Raises:
        ValueError: A key, value or combination that cannot work, named in one sentence.
        SystemExit: After ``--help``.
    """
    values = read_values(TandemArguments, sys.argv[1:] if argv is None else argv, USAGE)
    args = TandemArguments(**values)
    args.recipe = defaults() | values
    return build_run(args)


def check_steps(args: TandemArguments, rows: Any) -> None:
    """Refuse to drop the last batch of an epoch of training where it is the only one.

    Raises:
        ValueError: It names the keys.
    """
    batch = args.train_batch_size * args.world_size
    count = as_epoch_rows(rows).rows_per_epoch(batch * args.gradient_accumulation_steps)
    if args.dataloader_drop_last and count < batch:
        processes = f" on {args.world_size} processes" if args.world_size > 1 else ""
        raise ValueError(
            f"dataloader_drop_last: an epoch of {count} rows has no whole batch of {batch} "
            f"(per_device_train_batch_size {args.per_device_train_batch_size}{processes}), so that "
            "nothing would be trained; lower per_device_train_batch_size, or leave "
            "dataloader_drop_last out"
        )
