"""Turn write failures of torch, safetensors, tokenizers into ``SavingFailed`` on all processes."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils import gather_object

from trainers.checkpoints.files import checkpoints_in, has_optimizer

# How torch and the Rust libraries (safetensors, tokenizers) word a system error.
TORCH = re.compile("inline_container|iostream error")
RUST = re.compile(r"\(os error (\d+)\)")


class SavingFailed(Exception):
    """A file could not be written; the message says what, why, and where to resume, in one line."""


@contextmanager
def write_errors(what: str, output_dir: Path, part: Path | None = None) -> Iterator[None]:
    """Raise write failures inside the block as ``SavingFailed`` on all processes.

    Every process has to enter: the outcome is gathered, so that none waits for one that failed.

    Args:
        what: What is written, for the message: "checkpoint-8".
        output_dir: The run's folder.
        part: A folder of half-written files to delete then.

    Raises:
        SavingFailed: On all processes, if writing failed on one of them.
    """
    reason = None
    try:
        yield
    except Exception as error:
        reason = system_reason(error)
        if reason is None:
            raise
    reasons = [found for found in gather_object([reason]) if found is not None]
    if reasons:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
        raise SavingFailed(
            f"{what} could not be saved in {output_dir}: {reasons[0]}; {_remedy(output_dir)}"
        )


def system_reason(error: Exception) -> str | None:
    """The system's reason behind a failed write; None for any other error."""
    text = " ".join(str(error).split())
    known = RUST.search(text)
    if known:
        return os.strerror(int(known[1]))
    if isinstance(error, OSError):
        return error.strerror or text
    if TORCH.search(text):
        _, said, reason = text.partition("strerror: ")
        return reason if said else "a file could not be written completely"
    return None


def _remedy(output_dir: Path) -> str:
    try:
        free = f" ({shutil.disk_usage(output_dir).free / 1e6:,.0f} MB are free)"
    except OSError:
        free = ""
    return f"free space{free} or make it writable, then {how_to_resume(output_dir)}"


def how_to_resume(output_dir: Path) -> str:
    """How a run that has stopped is resumed, for a message."""
    last = [*checkpoints_in(output_dir).values()][-1:]
    if not last:
        return "start again, as there is no checkpoint yet"
    if not has_optimizer(last[0]):
        return (
            f"start a new run from {last[0].name} (save_only_model): --model_name_or_path {last[0]}"
        )
    return f"resume from {last[0].name} with --resume_from_checkpoint true"
