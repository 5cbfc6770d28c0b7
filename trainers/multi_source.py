"""Train one model on several sources, each step on one of them, by the objective of the source."""

from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from trainers.base import LossTrainer
from trainers.contrastive import ContrastiveTrainer
from trainers.reranker import RerankerTrainer
from trainers.similarity import OrderTrainer, SimilarityTrainer

if TYPE_CHECKING:
    from trainers.config.arguments import TandemArguments


class Task(NamedTuple):
    """What batches of one kind are trained with.

    Args:
        name: The source's; None for the run's own, which evaluates.
        trainer: The objective's, whose methods carry the batch to the loss.
        loss: With the source's ``loss_args``.
    """

    name: str | None
    trainer: type[LossTrainer]
    loss: nn.Module


class MultiSourceTrainer(ContrastiveTrainer, OrderTrainer, SimilarityTrainer, RerankerTrainer):
    """Is every trainer of the table, and works as the one that the source of a batch asks for.

    Batches are from ``SourceCollator``. All batches of an optimiser step are of one source, so that
    the items that ``share`` divides by are of one kind. What is observed is logged by source too:
    ``loss_<source>`` beside ``loss``.

    Args:
        args: The run's arguments, with ``train_files``.
        loss: Of the run's own objective, for evaluation.
        others: As for ``LossTrainer``.
    """

    def __init__(self, *, args: "TandemArguments", loss: nn.Module, **others: Any) -> None:
        self.tasks = [
            Task(source.name, source.args.objective_spec.trainer, source.args.build_loss())
            for source in args.build_sources()
        ]
        self.tasks.append(Task(None, args.objective_spec.trainer, loss))
        self.task = self.tasks[-1]
        super().__init__(args=args, loss=loss, **others)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The loss of the batch's source."""
        batch = self._turn_to(inputs)
        return self.task.trainer.compute_loss(
            self, model, batch, return_outputs, num_items_in_batch
        )

    def count_items(self, inputs: dict[str, Any]) -> Tensor:
        """As the objective of the batch's source counts."""
        batch = self._turn_to(inputs) if "source" in inputs else inputs
        return self.task.trainer.count_items(self, batch)

    def compare(self, queries: Tensor, documents: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """As the trainer of the batch's source does, of pairs alone or of all processes."""
        trainer = self.task.trainer
        assert issubclass(trainer, SimilarityTrainer)
        return trainer.compare(self, queries, documents, targets)

    def observe(self, name: str, value: Tensor, items: Tensor) -> None:
        """Note a metric of this batch, for all sources and for its own."""
        super().observe(name, value, items)
        if self.task.name is not None:
            super().observe(f"{name}_{self.task.name}", value, items)

    def _turn_to(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Work as the trainer of this batch's source from now on; returns the batch without it."""
        self.task = self.tasks[inputs["source"]]
        self.loss = self.task.loss
        return {name: value for name, value in inputs.items() if name != "source"}
