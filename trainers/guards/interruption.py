"""SIGTERM and Ctrl-C: the step is finished, a checkpoint is saved, and the run ends."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch.distributed import ReduceOp, all_reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# A launcher may hand on what the terminal has sent already: that is no second signal.
ONE_SIGNAL = 1.0  # seconds


class Interrupted(Exception):
    """The run was told to end by the signal ``number``, between two steps."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption(TrainerCallback):
    """Ends a run between two steps, on all processes alike, when any of them was told to.

    The step, and the evaluation and the checkpoint that are due after it, are finished first; a run
    that has taken its last step ends as usual. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.number, self.since = 0, 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, signals are for this object."""
        before = {
            number: signal.signal(number, self._told) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Everything that belongs to the step before has been done.

        Raises:
            Interrupted: A process was told to end.
        """
        number = self.number
        if args.world_size > 1:
            highest = torch.tensor(number, device=args.device)
            all_reduce(highest, ReduceOp.MAX)
            number = int(highest)
        if number:
            raise Interrupted(number)

    def _told(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self.number:
            self.number, self.since = number, time.monotonic()
            line = f"{name}: ending when what is under way is done and saved; again: at once\n"
            os.write(2, line.encode())  # print and logging may be in the middle of a line
        elif time.monotonic() - self.since >= ONE_SIGNAL:
            os._exit(128 + number)


def leave_signals_alone(_: int) -> None:
    """For a dataloader's workers, which get the signals of a whole group of processes.

    They end when the process that reads from them does.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
