"""Keys of a recipe that do not go together, told before anything is loaded."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.config.arguments import TandemArguments

# All of these raise ``ValueError`` with the key and the remedy.

# What the trainers rely on.
FIXED = {
    "remove_unused_columns": False,
    "prediction_loss_only": True,
    "logging_nan_inf_filter": False,
    "hub_strategy": "end",
    "train_sampling_strategy": "random",
    "label_smoothing_factor": 0.0,
}


def check_fixed(args: "TandemArguments") -> None:
    """Keys of ``TrainingArguments`` that have one value here."""
    for name, value in FIXED.items():
        if getattr(args, name) != value:
            raise ValueError(f"{name}: is always {json.dumps(value)} here; leave it out")


def check_evaluation(args: "TandemArguments") -> None:
    """When a run evaluates and saves, and what its best model is chosen by."""
    if args.eval_strategy != "no" and not args.eval_file:
        raise ValueError(
            f"eval_file: is missing, but eval_strategy is {_value(args.eval_strategy)}; give "
            'eval_file, or eval_strategy "no"'
        )
    same = args.eval_strategy == args.save_strategy != "no"
    if args.load_best_model_at_end and not same:
        raise ValueError(
            "load_best_model_at_end: needs one eval_strategy and save_strategy (steps or "
            f"epoch), got {_value(args.eval_strategy)} and {_value(args.save_strategy)}"
        )
    for name in ("eval_corpus", "eval_metrics", "eval_split", "eval_columns"):
        if getattr(args, name) and not args.eval_file:
            raise ValueError(f"{name}: needs an eval_file; give one, or leave {name} out")
    if args.early_stopping_patience is not None and not args.load_best_model_at_end:
        raise ValueError(
            "early_stopping_patience: needs load_best_model_at_end true, so that the run ends "
            "with its best model"
        )


def check_matryoshka(args: "TandemArguments") -> None:
    """Prefixes and their weights."""
    dims, weights = args.matryoshka_dims, args.matryoshka_weights
    if dims is None:
        if weights is not None:
            raise ValueError("matryoshka_weights: needs matryoshka_dims; give them too")
        return
    if not dims or min(dims) < 1 or len(set(dims)) < len(dims):
        raise ValueError(f"matryoshka_dims: must be different lengths of 1 or more, got {dims}")
    if weights is not None and (len(weights) != len(dims) or min(weights) <= 0):
        raise ValueError(
            f"matryoshka_weights: must be {len(dims)} numbers above 0, one for each of "
            f"matryoshka_dims, got {weights}"
        )


def check_lora(args: "TandemArguments") -> None:
    """An adapter's size."""
    if args.lora_r is None:
        for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
            if getattr(args, name):
                raise ValueError(f"{name}: needs lora_r; give it, or leave {name} out")
        return
    if not 0 <= args.lora_dropout < 1:
        raise ValueError(f"lora_dropout: must be in [0, 1), got {args.lora_dropout:g}")
    for name in ("lora_r", "lora_alpha"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}: must be at least 1, got {value}")
    if args.lora_target_modules == []:
        raise ValueError("lora_target_modules: is empty; name layers, or leave it out")


def _value(strategy: Any) -> str:
    return str(getattr(strategy, "value", strategy))
