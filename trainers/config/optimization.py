"""Try the optimizer and the learning-rate schedule of a run before anything is trained."""

import ast
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, get_scheduler

STEPS = 10  # of the schedule that is tried


def check_optimization(args: TrainingArguments, model: nn.Module) -> None:
    """Build optimizer and schedule for one weight, which shows whether their settings work.

    Raises:
        ValueError: A package is missing, or a setting cannot work or would have no effect.
    """
    optimizer = _try_optimizer(args, model)
    settings: Any = args.lr_scheduler_kwargs or {}
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=args.get_warmup_steps(STEPS),
            num_training_steps=STEPS,
            scheduler_specific_kwargs=settings,
        )
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(f"lr_scheduler_kwargs: {_one_line(error)}") from None


def _try_optimizer(args: TrainingArguments, model: nn.Module) -> torch.optim.Optimizer:
    settings = _read_settings(args.optim_args)
    name = str(getattr(args.optim, "value", args.optim))
    try:
        kind, given = Trainer.get_optimizer_cls_and_kwargs(args, model)  # type: ignore[arg-type]
        own = {key: given[key] for key in given if key not in ("params", "model", "optimizer_dict")}
        optimizer: torch.optim.Optimizer = kind([nn.Parameter(torch.zeros(1))], **own)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ValueError(f"optim: {name}: {_one_line(error)}") from None
    for key, value in settings.items():
        if optimizer.defaults.get(key) != value:
            raise ValueError(f"optim_args: {key}={value} has no effect on {name}; leave it out")
    return optimizer


def _read_settings(text: str | None) -> dict[str, Any]:
    """``name=value, ...`` as transformers reads it."""
    found = {}
    for pair in (text or "").replace(" ", "").split(",") if text else ():
        key, is_pair, value = pair.partition("=")
        if not is_pair:
            raise ValueError(
                f"optim_args: {text!r} must be name=value, with a comma between two; values "
                "cannot hold commas (adam_beta1 and adam_beta2 are keys of their own)"
            )
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
