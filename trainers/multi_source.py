"""Train one model on several sources: each step is of one source, by the source's objective."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from trainers.base import BaseTrainer

# What ``compute_loss`` of a trainer does, as a function such as ``compute_contrastive_loss``: from
# trainer, model, batch, loss and the items of the optimizer step to scaled loss and outputs.
ComputeLoss = Callable[
    [BaseTrainer, nn.Module, dict[str, Any], nn.Module, Any], tuple[Tensor, dict[str, Tensor]]
]


class SourceLoss(NamedTuple):
    """How the loss of one source's batches is computed.

    Args:
        name: The source's; None for the run's own objective, which evaluates.
        compute_loss: The objective's.
        loss: With the source's ``loss_args``.
    """

    name: str | None
    compute_loss: ComputeLoss
    loss: nn.Module


class MultiSourceTrainer(BaseTrainer):
    """Computes the loss of each batch as its source says.

    Batches are from ``SourceCollator``. All batches of an optimizer step are of one source, so that
    the items that ``scale_loss`` divides by are of one kind. Metrics are logged by source too:
    ``loss_<source>`` beside ``loss``.

    Args:
        source_losses: By number of source; the last one is for evaluation.
        kwargs: As for ``BaseTrainer``.
    """

    def __init__(self, *, source_losses: Sequence[SourceLoss], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_losses = source_losses
        self._source: str | None = None  # whose batch is computed now

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The loss of the batch's source."""
        self._source, compute_loss, own_loss = self.source_losses[inputs["source"]]
        batch = {name: value for name, value in inputs.items() if name != "source"}
        loss, outputs = compute_loss(self, model, batch, own_loss, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def record_metric(self, name: str, value: Tensor, items: Tensor) -> None:
        """Record a metric of this batch, for all sources and for its own."""
        super().record_metric(name, value, items)
        if self._source is not None:
            super().record_metric(f"{name}_{self._source}", value, items)
