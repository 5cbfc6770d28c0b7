"""The arguments of a training run, checked, each by itself and against each other.

All checks raise ``ValueError`` with the key, what is wrong, and the remedy, before anything is
loaded. What depends on the objective is checked in ``task.py``.
"""

import logging
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import torch
from transformers import TrainingArguments

from common.hardware import multiplies_in_bf16, process_threads
from trainers.config.fields import DataArguments, ModelArguments, RecipeFields
from trainers.config.trainer_settings import check_compiling, check_trackers, check_trainer_settings

logger = logging.getLogger(__name__)

LEAST = {
    1: (
        "query_max_length", "document_max_length", "max_length", "projection_dim",
        "gradient_cache_chunk_size", "early_stopping_patience", "per_device_train_batch_size",
        "per_device_eval_batch_size", "gradient_accumulation_steps", "save_total_limit",
    ),
    0: (
        "learning_rate", "head_learning_rate", "weight_decay", "max_grad_norm", "warmup_steps",
        "dataloader_num_workers", "in_batch_negatives", "seed", "data_seed",
    ),
}  # fmt: skip

LARGEST_SEED = 2**32 - 1  # NumPy's
MOST_WORKERS = 4  # of a GPU by default
METRIC_SCHEDULES = {"reduce_lr_on_plateau", "greedy"}  # schedules that a metric decides on


@dataclass
class TandemArguments(RecipeFields):
    """All arguments of ``scripts/train.py``, for one process.

    Raises:
        ValueError: A value or combination that cannot work; it begins with the key.
    """

    # The recipe over all defaults, before this machine had a say (``parse_run``).
    recipe: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        _check_arguments(self)
        gpu = torch.accelerator.is_available() and not self.use_cpu
        set_dataloader_defaults(self, gpu)
        if self.bf16 and not gpu and not multiplies_in_bf16():
            logger.warning(
                "bf16 is off for this run: this CPU has no bf16 instructions (AVX512-BF16 or AMX), "
                "and emulating them is many times slower than fp32"
            )
            self.bf16 = False
        if not torch.accelerator.is_available():
            self.use_cpu = True  # TrainingArguments refuses bf16 on a CPU that was not asked for.
        if self.fp16 and not gpu:
            raise ValueError("fp16: needs a GPU; leave it out, or give bf16 on a CPU that has it")
        if self.report_to is None:
            self.report_to = "none"
        check_trackers(self.report_to)
        # Where steps are skipped, their losses must not enter Trainer's mean.
        self.logging_nan_inf_filter = self.on_bad_loss == "skip"
        if isinstance(self.train_file, str):
            self.train_file = [self.train_file]
        if isinstance(self.eval_file, str):
            self.eval_file = [self.eval_file]
        if isinstance(self.guard_file, str):
            self.guard_file = [self.guard_file]
        try:
            super().__post_init__()  # type: ignore[no-untyped-call]
        except (ImportError, OSError, TypeError) as error:
            # A missing package (deepspeed, ...) or file; an object with unknown keys.
            raise ValueError(" ".join(str(error).split())) from None
        if self.lr_scheduler_type in METRIC_SCHEDULES:
            # By itself it takes a metric that rises for one that gets worse.
            given: Any = self.lr_scheduler_kwargs or {}
            mode = "max" if self.greater_is_better else "min"
            self.lr_scheduler_kwargs = {"mode": mode} | given
        if self.save_total_limit == 1 and self.metric_for_best_model:
            # The best and the last: Trainer would delete the last before the model is saved.
            self.save_total_limit = 2


def set_dataloader_defaults(args: RecipeFields, gpu: bool) -> None:
    """Where the recipe leaves it open, load batches so that a GPU does not wait for them."""
    if args.dataloader_num_workers is None:
        args.dataloader_num_workers = min(MOST_WORKERS, process_threads() - 1) if gpu else 0
    if args.accelerator_config is None and gpu:
        args.accelerator_config = {"non_blocking": args.dataloader_pin_memory}


OWN_FIELDS = [
    known
    for known in fields(TandemArguments)
    if known.init and known.name not in {other.name for other in fields(TrainingArguments)}
]


def defaults() -> dict[str, Any]:
    """Every key with its default, this project's own keys first."""
    values = {}
    for known in sorted(fields(TandemArguments), key=lambda known: known not in OWN_FIELDS):
        if known.init:
            made = None if known.default_factory is MISSING else known.default_factory()
            value = made if known.default is MISSING else known.default
            values[known.name] = getattr(value, "value", value)
    return values


def _check_arguments(args: RecipeFields) -> None:
    _check_required(args)
    _check_limits(args)
    check_labels(args)
    _check_evaluation(args)
    _check_matryoshka(args)
    _check_dropout(args)
    _check_lora(args)
    check_trainer_settings(args)
    check_compiling(args)
    for name in ("fsdp", "fsdp_config"):
        if getattr(args, name):
            raise ValueError(
                f"{name}: is set at launch (accelerate launch --config_file "
                "configs/accelerate/fsdp2.yaml); leave it out of the recipe"
            )


def _check_required(args: RecipeFields) -> None:
    if args.train_files is not None and args.train_file:
        raise ValueError(
            "train_files: cannot be combined with train_file; give one of them (a flag "
            "--train_files null takes it out of the recipe)"
        )
    if args.train_files == []:
        raise ValueError("train_files: is empty; give sources, or train_file")
    for name in ("objective", "model_name_or_path", "train_file", "output_dir"):
        if not getattr(args, name) and not (name == "train_file" and args.train_files):
            other = " (or train_files)" if name == "train_file" else ""
            raise ValueError(f"{name}: is missing; add it{other} to the recipe or give --{name}")
    if args.train_files is None and args.batches_from != "one_source":
        raise ValueError("batches_from: is for train_files; leave it out")


def _check_limits(args: RecipeFields) -> None:
    values = vars(args)
    for least, names in LEAST.items():
        for name in names:
            if values[name] is not None and values[name] < least:
                raise ValueError(f"{name}: must be at least {least}, got {values[name]}")
    for name in ("seed", "data_seed"):
        if (values[name] or 0) > LARGEST_SEED:
            raise ValueError(f"{name}: must be at most {LARGEST_SEED}, got {values[name]}")
    if values["max_steps"] == 0 or values["max_steps"] < -1:
        raise ValueError(
            f"max_steps: must be at least 1, got {values['max_steps']}; -1 leaves the length to "
            "num_train_epochs"
        )
    if values["max_steps"] == -1 and values["num_train_epochs"] <= 0:
        raise ValueError(f"num_train_epochs: must be above 0, got {values['num_train_epochs']}")


def check_labels(args: DataArguments) -> None:
    """Refuse settings of labels that cannot be."""
    if args.label_map == {}:
        raise ValueError('label_map: is empty; give {"label": relevance, ...} or leave it out')
    bounds = args.label_range
    if bounds is not None and (len(bounds) != 2 or not bounds[0] < bounds[1]):
        raise ValueError(f"label_range: must be [lowest, highest], got {bounds}")


def _check_evaluation(args: RecipeFields) -> None:
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
    for name in ("eval_corpus", "eval_metrics", "eval_split", "eval_columns", "eval_on_start"):
        if getattr(args, name) and not args.eval_file:
            raise ValueError(f"{name}: needs an eval_file; give one, or leave {name} out")
    if args.metric_for_best_model and args.eval_strategy == "no":
        raise ValueError(
            "metric_for_best_model: needs evaluations during training; give eval_strategy steps or "
            "epoch, or leave it out"
        )
    if args.save_strategy == "best" and not args.metric_for_best_model:
        raise ValueError("save_strategy: best needs metric_for_best_model; give it too")
    if args.merge_with_base == "auto" and (not args.eval_file or args.eval_metrics == []):
        raise ValueError(
            "merge_with_base: auto needs metrics of an eval_file to choose by; give it"
        )
    if isinstance(args.merge_with_base, float) and not 0 <= args.merge_with_base <= 1:
        raise ValueError(f"merge_with_base: must be from 0 to 1, got {args.merge_with_base:g}")
    if args.guard_file and args.merge_with_base != "auto":
        raise ValueError("guard_file: is for merge_with_base auto; leave it out")
    if args.on_worse != "warn" and (not args.eval_file or args.eval_metrics == []):
        raise ValueError(
            f"on_worse: {args.on_worse} needs metrics of an eval_file; give one, or leave it out"
        )
    if args.early_stopping_patience is not None and not args.load_best_model_at_end:
        raise ValueError(
            "early_stopping_patience: needs load_best_model_at_end true, so that the run ends "
            "with its best model"
        )


def _check_matryoshka(args: RecipeFields) -> None:
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


def _check_dropout(args: ModelArguments) -> None:
    for name in ("attention_dropout", "lora_dropout"):
        value = getattr(args, name)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{name}: must be in [0, 1), got {value:g}")


def _check_lora(args: ModelArguments) -> None:
    if args.lora_r is None:
        for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
            if getattr(args, name):
                raise ValueError(f"{name}: needs lora_r; give it, or leave {name} out")
        return
    for name in ("lora_r", "lora_alpha"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}: must be at least 1, got {value}")
    if args.lora_target_modules == []:
        raise ValueError("lora_target_modules: is empty; name layers, or leave it out")


def _value(strategy: Any) -> str:
    return str(getattr(strategy, "value", strategy))
