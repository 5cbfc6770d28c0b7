"""Progress bar and log lines of a run, on the console and in ``finetune.log``."""

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common.run_files import LOG_FILE

logger = logging.getLogger(__name__)

# Few: the bar is one line. The log lines have everything.
ON_THE_BAR = ("loss", "in_batch_accuracy", "eval_loss")


class _ThroughBar(logging.StreamHandler[Any]):
    """Write above the progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)


class _LogFile(logging.FileHandler):
    """A log file whose write errors do not stop the run; the first is printed."""

    warned = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.warned:
            self.warned = True
            error = sys.exc_info()[1]
            print(f"warning: {self.baseFilename} lacks lines: {error}", file=sys.stderr)

    def close(self) -> None:
        with suppress(OSError):  # flushing lines that were warned about
            super().close()


def set_up_logging(output_dir: Path, main_process: bool) -> None:
    """Send log lines to the console and to ``finetune.log`` in ``output_dir`` (appended).

    Other processes than the main one log warnings only, and to the console only.
    """
    handlers: list[logging.Handler] = [_ThroughBar()]
    if main_process:
        output_dir.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(output_dir / LOG_FILE, encoding="utf-8"))
    logging.basicConfig(
        level=logging.INFO if main_process else logging.WARNING,
        format="%(asctime)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        handlers=handlers,
        force=True,
    )
    for noisy in ("httpx", "filelock", "datasets", "fsspec", "torch.distributed"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class RunLog(TrainerCallback):
    """One line for each thing ``Trainer`` logs, and one bar over all steps, with the loss on it."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.shown: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.is_world_process_zero and not args.disable_tqdm:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, unit="step", desc="training"
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if self.bar is not None and logs:
            self.shown |= {name: f"{logs[name]:.4f}" for name in ON_THE_BAR if name in logs}
            self.bar.set_postfix(self.shown)
        if state.is_world_process_zero and logs:
            values = "  ".join(f"{name} {_short(value)}" for name, value in logs.items())
            logger.info("step %d/%d  %s", state.global_step, state.max_steps, values)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
