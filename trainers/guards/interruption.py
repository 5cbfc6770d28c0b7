"""SIGTERM and Ctrl-C: finish the step, save a checkpoint, end the run."""

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

# A launcher may forward what the terminal has sent already: within this time it is one signal.
ONE_SIGNAL = 1.0  # seconds


class Interrupted(Exception):
    """The signal ``number`` ended the run between two steps."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interruption(TrainerCallback):
    """Ends a run between two steps, on all processes, when any of them received a signal.

    The step, and the evaluation and the checkpoint that are due after it, are finished first; a run
    that has taken its last step ends as usual. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.number, self.since = 0, 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals inside the block."""
        before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Stop here, where everything that belongs to the step before is done.

        Raises:
            Interrupted: On all processes, if one received a signal.
        """
        number = self.number
        if args.world_size > 1:
            highest = torch.tensor(number, device=args.device)
            all_reduce(highest, ReduceOp.MAX)
            number = int(highest)
        if number:
            raise Interrupted(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if not self.number:
            self.number, self.since = number, time.monotonic()
            line = f"{name}: finishing the step and saving; send it again to stop at once\n"
            os.write(2, line.encode())  # print and logging are not safe in a signal handler
        elif time.monotonic() - self.since >= ONE_SIGNAL:
            os._exit(128 + number)
