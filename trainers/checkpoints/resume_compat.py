"""Compare a resumed run's settings and launch with those of its checkpoint."""

import json
import logging
import os
import re
from pathlib import Path

from transformers import TrainingArguments

from common.run_files import RUN_FILE
from trainers.config.arguments import TandemArguments

logger = logging.getLogger(__name__)


# Settings that do not affect the weights.
_HARMLESS = re.compile(
    "output_dir|resume_from_checkpoint|overwrite|run_name|project|trackio.*|report_to|"
    "disable_tqdm|log.*|save_.*|push_to_hub|hub_.*|streaming|dataloader_(?!drop_last).*|tf32|enable_jit_.*"
)


def compare_settings(args: TandemArguments, checkpoint: Path) -> None:
    """Warn of settings that differ from those of the checkpoint's run."""
    run_file = checkpoint.parent / RUN_FILE
    if args.process_index != 0 or not run_file.is_file():
        return
    theirs = json.loads(run_file.read_text(encoding="utf-8"))
    changed = [
        f"{name} {value} (it had {theirs[name]})"
        for name, value in json.loads(json.dumps(args.recipe)).items()
        if name in theirs and theirs[name] != value and not _HARMLESS.fullmatch(name)
    ]
    if changed:
        logger.warning(
            "resume_from_checkpoint: %s is of a run with other settings: %s. The remaining steps "
            "use the new settings; the result matches neither run",
            checkpoint, ", ".join(changed),
        )  # fmt: skip


def compare_launch(args: TrainingArguments, checkpoint: Path) -> None:
    """Warn if the number of processes differs from that of the checkpoint's run.

    Raises:
        ValueError: Only one of the two runs uses FSDP, or in another form: the optimizer's state
            cannot be loaded.
    """
    _check_optimizer(checkpoint)
    # One file for each process, or one without a number.
    processes = len(list(checkpoint.glob("rng_state_*.pth"))) or 1
    if processes == args.world_size or args.process_index != 0:
        return
    run_file = checkpoint.parent / RUN_FILE
    theirs = json.loads(run_file.read_text(encoding="utf-8")) if run_file.is_file() else {}
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps")
    before, now = processes, args.world_size
    for name in sizes:
        before, now = before * theirs.get(name, getattr(args, name)), now * getattr(args, name)
    rows = (
        "the order of the rows continues where it was"
        if before == now
        else f"a step takes {now} rows instead of {before}, so that the resumed step is at another "
        f"place of the epoch (for {before} rows, change {' or '.join(sizes)})"
    )
    logger.warning(
        "resume_from_checkpoint: %s is of a run of %d processes, this one has %d: %s; dropout "
        "draws other random numbers",
        checkpoint, processes, args.world_size, rows,
    )  # fmt: skip


def _check_optimizer(checkpoint: Path) -> None:
    now = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    kind = os.environ.get("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT") if now else "no FSDP"
    found = {
        "no FSDP": checkpoint / "optimizer.pt",
        "FULL_STATE_DICT": checkpoint / "optimizer.bin",
        "SHARDED_STATE_DICT": checkpoint / "optimizer_0",
    }
    if kind not in found or found[kind].exists():
        return
    for other, path in found.items():
        if path.exists():
            raise ValueError(
                f"resume_from_checkpoint: {checkpoint} holds the optimizer state of a run with "
                f"{other}, this one is launched with {kind}; launch it like that one, or train on "
                f"from its model: --model_name_or_path {checkpoint}"
            )
