"""What cannot be written: one error for all the libraries that write, on all processes alike."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils import gather_object

from trainers.checkpoints.files import checkpoints_in

# How torch and the libraries in Rust (safetensors, tokenizers) tell of the system's refusal.
TORCH = re.compile("inline_container|iostream error")
RUST = re.compile(r"\(os error (\d+)\)")


class SavingFailed(Exception):
    """Something could not be written: what, why, and what is left to go on from, in one line."""


@contextmanager
def saving(what: str, run: Path) -> Iterator[None]:
    """Write something; every process has to come here, and all leave it in the same way.

    Args:
        what: "checkpoint-8", say.
        run: The run's folder.

    Raises:
        SavingFailed: On all processes, if the disk refused one of them.
    """
    reason = None
    try:
        yield
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
    reasons = [found for found in gather_object([reason]) if found is not None]
    if reasons:
        raise SavingFailed(f"{what} could not be saved in {run}: {reasons[0]}; {_remedy(run)}")


def refusal(error: Exception) -> str | None:
    """What the system said to a library that wanted to write; None: the error is another."""
    text = " ".join(str(error).split())
    known = RUST.search(text)
    if known:
        return os.strerror(int(known[1]))
    if isinstance(error, OSError):
        return error.strerror or text
    if TORCH.search(text):
        _, said, reason = text.partition("strerror: ")
        return reason if said else "a file could not be written to its end"
    return None


def _remedy(run: Path) -> str:
    last = [path.name for path in checkpoints_in(run).values()][-1:]
    back = (
        f"go on from {last[0]} by --resume_from_checkpoint true"
        if last
        else "start again, as there is no checkpoint yet"
    )
    try:
        free = f" ({shutil.disk_usage(run).free / 1e6:,.0f} MB are free)"
    except OSError:
        free = ""
    return f"make room{free} or let it be written to, then {back}"
