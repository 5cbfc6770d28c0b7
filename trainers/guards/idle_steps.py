"""Idle steps have no training signal, so that their gradient is 0: warn of the first, count all."""

import logging

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import TrainerState

logger = logging.getLogger(__name__)

_MOST_PENDING = 1000  # steps between two counts

# Why a batch may have no training signal.
NO_NEGATIVES = (
    "no query of the step has a negative: it has one different document, or all are known to "
    "answer its queries; raise per_device_train_batch_size, or give rows negatives"
)
EQUAL_RELEVANCES = (
    "all rows of the step have the same relevance, and the objective learns from their order; "
    "raise per_device_train_batch_size, or give rows with other relevances"
)
EQUAL_IN_EACH_GROUP = (
    "each group of the step has one candidate, or candidates of the same relevance; give groups "
    "with both, or raise train_group_size"
)
ONE_CANDIDATE_EACH = (
    "each group of the step has one candidate, and the objective learns from their differences; "
    "give groups with more"
)


def groups_differ(relevances: Tensor, mask: Tensor) -> Tensor:
    """Whether any group [G, C] has candidates of different relevance: a bool []."""
    highest = relevances.masked_fill(~mask, float("-inf")).amax(dim=1)
    lowest = relevances.masked_fill(~mask, float("inf")).amin(dim=1)
    return (highest > lowest).any()


class IdleSteps:
    """Counts the steps in which no batch of any process has a training signal.

    The answers stay on their device and are read when the loss is logged, so that no step has to
    synchronise with the device for them.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        # Of each step since the last count: whether its batches have a signal, or why not.
        self._steps: list[list[tuple[Tensor, str]]] = []
        self._unlogged = 0
        self._warned = False

    def begin_step(self, state: TrainerState) -> None:
        """Start a step: what is recorded from now on belongs to it."""
        if len(self._steps) >= _MOST_PENDING:
            self._count(state)
        self._steps.append([])

    def record(self, has_signal: Tensor, reason: str) -> None:
        """Record whether a batch has a training signal (a bool []), and why it would have none."""
        if self._steps:
            self._steps[-1].append((has_signal.detach(), reason))

    def pop(self, state: TrainerState) -> int:
        """The run's idle steps up to now if there are new ones, else 0; a collective operation."""
        self._count(state)
        unlogged, self._unlogged = self._unlogged, 0
        return count_idle(state) + unlogged if unlogged else 0

    def _count(self, state: TrainerState) -> None:
        steps, self._steps = self._steps, []
        noted = [at for at, step in enumerate(steps) if step]
        if not noted:
            return
        signals = [torch.stack([has_signal for has_signal, _ in steps[at]]) for at in noted]
        learns = torch.stack([signal.any() for signal in signals]).float()
        learns = self.accelerator.reduce(learns, "sum")
        idle = [at for at, learned in zip(noted, learns.tolist(), strict=True) if not learned]
        self._unlogged += len(idle)
        if idle and not self._warned:
            self._warned = True
            if self.accelerator.is_main_process:
                number = state.global_step - len(steps) + idle[0] + 1
                _, reason = steps[idle[0]][-1]
                logger.warning("nothing can be learned from step %d: %s", number, reason)


def count_idle(state: TrainerState) -> int:
    """Idle steps that the run has logged, those before a resume included."""
    counts = [entry["idle_steps"] for entry in state.log_history if "idle_steps" in entry]
    return int(counts[-1]) if counts else 0
