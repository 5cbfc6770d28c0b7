"""Put a training run together: arguments, objective and sources, and the trainer they ask for."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from collators.epochs import numbered
from common.flags import read_values
from trainers.base import BaseTrainer
from trainers.config.arguments import TandemArguments, defaults
from trainers.config.task import Source, Task, build_sources, check_kind, find_objective
from trainers.contrastive import ContrastiveTrainer, contrastive_step
from trainers.multi_source import MultiSourceTrainer, SourceStep, Step
from trainers.reranker import RerankerTrainer, reranker_step
from trainers.similarity import SimilarityTrainer, similarity_step

USAGE = """Fine-tune an embedder or a reranker.

    accelerate launch scripts/train.py --config configs/reranker.json
    accelerate launch scripts/train.py --config configs/reranker.json --learning_rate 1e-4
"""

STEPS: dict[type[BaseTrainer], Step] = {
    ContrastiveTrainer: contrastive_step,
    SimilarityTrainer: similarity_step,
    RerankerTrainer: reranker_step,
}


@dataclass(frozen=True)
class Run(Task):
    """A run of ``scripts/train.py``.

    Args:
        sources: Of ``train_files``; none for a run with one ``train_file``.
    """

    sources: list[Source]

    @property
    def has_several_steps(self) -> bool:
        """Whether each step is of one source, with the objective and settings of the source."""
        return bool(self.sources) and self.args.batches_from == "one_source"

    def build_trainer(self, **given: Any) -> BaseTrainer:
        """The objective's trainer, or ``MultiSourceTrainer``.

        Args:
            given: What the trainer takes beside ``args`` and ``loss``: model, data, measure, ...
        """
        if not self.has_several_steps:
            return self.objective.trainer(args=self.args, loss=self.build_loss(), **given)
        steps = [_source_step(source.name, source) for source in self.sources]
        evaluation = _source_step(None, self)
        return MultiSourceTrainer(
            args=self.args, loss=evaluation.loss, source_steps=[*steps, evaluation], **given
        )


def _source_step(name: str | None, task: Task) -> SourceStep:
    return SourceStep(name, STEPS[task.objective.trainer], task.build_loss())


def build_run(args: TandemArguments) -> Run:
    """Check arguments against their objective and sources.

    Raises:
        ValueError: A key, value or combination that cannot work, named in one sentence.
    """
    task = Task(args, find_objective(args))
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
    count = numbered(rows).epoch_rows(batch * args.gradient_accumulation_steps)
    if args.dataloader_drop_last and count < batch:
        processes = f" on {args.world_size} processes" if args.world_size > 1 else ""
        raise ValueError(
            f"dataloader_drop_last: an epoch of {count} rows has no whole batch of {batch} "
            f"(per_device_train_batch_size {args.per_device_train_batch_size}{processes}), so that "
            "nothing would be trained; lower per_device_train_batch_size, or leave "
            "dataloader_drop_last out"
        )
