"""Steps from which nothing can be learned: they are told of, and counted."""

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer

if TYPE_CHECKING:
    from trainers.config.arguments import TandemArguments

logger = logging.getLogger(__name__)

_MOST = 1000  # steps between two looks

# What a loss compares, and why a step may have nothing of it.
NO_NEGATIVE = (
    "no query of the step has a negative: there is one different document, or all are known to "
    "answer its queries; raise per_device_train_batch_size, or give rows negatives"
)
ONE_RELEVANCE = (
    "all rows of the step have one relevance, and the objective learns from their order; raise "
    "per_device_train_batch_size, or give rows with other relevances"
)
ALIKE = (
    "each group of the step has one candidate, or candidates of one relevance; give groups with "
    "both, or raise train_group_size"
)
ALONE = (
    "each group of the step has one candidate, and the objective learns from their differences; "
    "give groups with more"
)


def groups_differ(relevances: Tensor, mask: Tensor) -> Tensor:
    """Whether any group [G, C] has candidates of two relevances."""
    highest = relevances.masked_fill(~mask, float("-inf")).amax(dim=1)
    lowest = relevances.masked_fill(~mask, float("inf")).amin(dim=1)
    return (highest > lowest).any()


@dataclass
class _Step:
    """The answers of a step's batches, and why the last of them would be no."""

    answers: list[Tensor] = field(default_factory=list)
    reason: str = ""


class SignalTrainer(Trainer):
    """A ``Trainer`` whose ``compute_loss`` notes of each batch whether it can teach anything.

    The answers stay on their device, and are looked at when the loss is, so that no step waits for
    them. A step is idle if all its batches are, on all processes.
    """

    args: "TandemArguments"
    model: nn.Module

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps: list[_Step] = []  # since the last look
        self._idle = 0  # seen and not logged yet
        self._told = False

    def begin_step(self) -> None:
        """The batches that are noted from now on are of the next step."""
        if len(self._steps) >= _MOST:
            self._look()
        self._steps.append(_Step())

    def note_signal(self, learns: Tensor, reason: str) -> None:
        """Whether a batch of training has something to learn from, and why if it has nothing."""
        if self.model.training and self._steps:
            self._steps[-1].answers.append(learns.detach())
            self._steps[-1].reason = reason

    @property
    def idle_steps(self) -> int:
        """Steps of the run from which nothing could be learned, those before a resume too."""
        counted = [entry["idle_steps"] for entry in self.state.log_history if "idle_steps" in entry]
        return int(counted[-1]) if counted else 0

    def _look(self) -> None:
        """Count the idle steps since the last look, on all processes; tell of the first."""
        steps, self._steps = self._steps, []
        noted = [at for at, step in enumerate(steps) if step.answers]
        if not noted:
            return
        learns = torch.stack([torch.stack(steps[at].answers).any() for at in noted]).float()
        if self.accelerator.num_processes > 1:
            learns = self.accelerator.reduce(learns, "sum")
        idle = [at for at, learned in zip(noted, learns.tolist(), strict=True) if not learned]
        self._idle += len(idle)
        if idle and not self._told:
            self._told = True
            if self.is_world_process_zero():
                number = self.state.global_step - len(steps) + idle[0] + 1
                logger.warning(
                    "nothing can be learned from step %d: %s", number, steps[idle[0]].reason
                )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the number of idle steps with the loss, if there are any."""
        if "loss" in logs or "train_loss" in logs:
            self._look()
            if self._idle:
                logs = {**logs, "idle_steps": self.idle_steps + self._idle}
                self._idle = 0
        super().log(logs, start_time)
