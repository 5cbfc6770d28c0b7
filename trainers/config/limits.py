"""Bounds of numbers in a recipe, below which a run would fail later or do nothing."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from collators.epochs import EpochRows

# Packages of the trackers that have an extra of ours.
EXTRAS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}

AT_LEAST_ONE = (
    "query_max_length",
    "document_max_length",
    "max_length",
    "projection_dim",
    "gradient_cache_chunk_size",
    "early_stopping_patience",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
)
AT_LEAST_ZERO = (
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "dataloader_num_workers",
    "seed",
)


def check_limits(values: Mapping[str, Any]) -> None:
    """Refuse what is out of bounds; None is everywhere the default.

    Raises:
        ValueError: It names the key.
    """
    for least, names in ((1, AT_LEAST_ONE), (0, AT_LEAST_ZERO)):
        for name in names:
            if values[name] is not None and values[name] < least:
                raise ValueError(f"{name}: must be at least {least}, got {values[name]}")
    if values["max_steps"] == 0 or values["max_steps"] < -1:
        raise ValueError(
            f"max_steps: must be at least 1, got {values['max_steps']}; -1 leaves the length to "
            "num_train_epochs"
        )
    if values["max_steps"] == -1 and values["num_train_epochs"] <= 0:
        raise ValueError(f"num_train_epochs: must be above 0, got {values['num_train_epochs']}")


def check_steps(args: TrainingArguments, rows: Any) -> None:
    """Refuse to drop the last batch of an epoch where it is the only one.

    Args:
        args: The run's.
        rows: Those of training.

    Raises:
        ValueError: It names the keys.
    """
    batch = args.train_batch_size * args.world_size
    numbered = rows if isinstance(rows, EpochRows) else EpochRows(rows)
    count = numbered.epoch_rows(batch * args.gradient_accumulation_steps)
    if args.dataloader_drop_last and count < batch:
        processes = f" on {args.world_size} processes" if args.world_size > 1 else ""
        raise ValueError(
            f"dataloader_drop_last: an epoch of {count} rows has no whole batch of {batch} "
            f"(per_device_train_batch_size {args.per_device_train_batch_size}{processes}), so that "
            "nothing would be trained; lower per_device_train_batch_size, or leave "
            "dataloader_drop_last out"
        )


def check_report_to(names: str | list[str]) -> None:
    """Refuse a tracker that does not exist, or whose package is not installed.

    Raises:
        ValueError: It says which exist, or what to install.
    """
    for name in [names] if isinstance(names, str) else names:
        if name in ("none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(["none", "all", *INTEGRATION_TO_CALLBACK])
            raise ValueError(f"report_to: {name!r} is not one of {known}")
        if name in EXTRAS and not any(find_spec(package) for package in EXTRAS[name]):
            raise ValueError(
                f"report_to: {name} is not installed; pip install -c constraints.txt -e '.[{name}]'"
            )
