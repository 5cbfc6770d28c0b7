"""Train one model on several sources: each step is of one source, by the source's objective."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from trainers.base import BaseTrainer

# As `contrastive_step`: trainer, model, batch, loss and the step's items to loss and outputs.
Step = Callable[
    [BaseTrainer, nn.Module, dict[str, Any], nn.Module, Any], tuple[Tensor, dict[str, Tensor]]
]


class SourceStep(NamedTuple):
    """How the batches of one source are trained on.

    Args:
        name: The source's; None for the run's own objective, which evaluates.
        step: The objective's.
        loss: With the source's ``loss_args``.
    """

    name: str | None
    step: Step
    loss: nn.Module


class MultiSourceTrainer(BaseTrainer):
    """Hands each batch to the step of its source.

    Batches are from ``SourceCollator``. All batches of an optimizer step are of one source, so that
    the items that ``scale_loss`` divides by are of one kind. Metrics are logged by source too:
    ``loss_<source>`` beside ``loss``.

    Args:
        source_steps: By number of source; the last one is for evaluation.
        kwargs: As for ``BaseTrainer``.
    """

    def __init__(self, *, source_steps: Sequence[SourceStep], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_steps = source_steps
        self._source: str | None = None  # whose batch is computed now

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """The loss of the batch's source."""
        self._source, step, own_loss = self.source_steps[inputs["source"]]
        batch = {name: value for name, value in inputs.items() if name != "source"}
        loss, outputs = step(self, model, batch, own_loss, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def record_metric(self, name: str, value: Tensor, items: Tensor) -> None:
        """Record a metric of this batch, for all sources and for its own."""
        super().record_metric(name, value, items)
        if self._source is not None:
            super().record_metric(f"{name}_{self._source}", value, items)
