"""Settings of transformers' ``Trainer`` that cannot be honoured here, each with its reason."""

import json
import os
from importlib.util import find_spec
from shutil import which

from accelerate.utils import DynamoBackend
from transformers import TrainingArguments
from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.training_args import trainer_log_levels

# Packages of the trackers that have an extra of ours.
EXTRAS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}
# What the trainers rely on, or what would have no effect here.
FIXED = {
    "remove_unused_columns": False,
    "prediction_loss_only": True,
    "logging_nan_inf_filter": False,
    "hub_strategy": "end",
    "train_sampling_strategy": "random",
    "label_smoothing_factor": 0.0,
    "label_names": None,
    "include_for_metrics": [],
    "batch_eval_metrics": False,
    "include_num_input_tokens_seen": "no",
    "bf16_full_eval": False,
    "fp16_full_eval": False,
    "neftune_noise_alpha": None,
    "auto_find_batch_size": False,
    "use_liger_kernel": False,
    "liger_kernel_config": None,
    "deepspeed": None,
    "parallelism_config": None,
    "dataloader_in_order": True,
    "enable_jit_checkpoint": False,
    "average_tokens_across_devices": True,
    "do_predict": False,
    "use_cache": False,
    "length_column_name": "length",
    "eval_do_concat_batches": True,
    "eval_use_gather_object": False,
    "eval_accumulation_steps": None,
    "hub_always_push": False,
    "local_rank": -1,
}
_OWN_METRICS = " (eval_metrics says what is measured)"
_ROUNDED = " (the model would be saved with rounded weights; bf16 evaluates in bf16 as well)"
WHY_FIXED = {
    "label_smoothing_factor": " (it is for class labels; losses here take relevances)",
    "include_for_metrics": _OWN_METRICS,
    "batch_eval_metrics": _OWN_METRICS,
    "include_num_input_tokens_seen": " (batches hold several texts a row)",
    "bf16_full_eval": _ROUNDED,
    "fp16_full_eval": _ROUNDED,
    "neftune_noise_alpha": " (noise on embeddings is not supported)",
    "auto_find_batch_size": " (a smaller batch is another task; lower "
    "per_device_train_batch_size, or give gradient_cache_chunk_size)",
    "deepspeed": " (to shard a model use FSDP2: configs/accelerate/fsdp2.yaml)",
    "dataloader_in_order": " (a run could not be resumed exactly)",
    "enable_jit_checkpoint": " (SIGTERM ends a run at a checkpoint anyway)",
    "average_tokens_across_devices": " (the loss is a mean over all rows of a step)",
    "do_predict": " (scripts/evaluate.py measures a model)",
    "use_cache": " (nothing is generated)",
    "length_column_name": " (rows come in random order)",
    "eval_do_concat_batches": _OWN_METRICS,
    "eval_use_gather_object": _OWN_METRICS,
    "eval_accumulation_steps": _OWN_METRICS,
    "hub_always_push": " (the folder is pushed once, at the end)",
    "local_rank": " (accelerate launch says which process is which)",
}
COMPILE_MODES = ["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
CHECKPOINTING = {"use_reentrant", "preserve_rng_state", "context_fn", "determinism_check", "debug",
                 "every_n_layers", "offload"}  # fmt: skip


def check_trainer_settings(args: TrainingArguments) -> None:
    """Refuse what would change a run without a word, or fail in the middle of it.

    Raises:
        ValueError: Such a setting, by its key.
    """
    for name, value in FIXED.items():
        if getattr(args, name) != value:
            why = WHY_FIXED.get(name, "")
            raise ValueError(f"{name}: is always {json.dumps(value)} here{why}; leave it out")
    for name in ("save_steps", "eval_steps", "logging_steps"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name}: must be above 0, got {value}")
    for name in ("persistent_workers", "prefetch_factor", "multiprocessing_context"):
        if getattr(args, f"dataloader_{name}") and not args.dataloader_num_workers:
            raise ValueError(
                f"dataloader_{name}: needs dataloader_num_workers; give it, or leave it out"
            )
    for name in ("log_level", "log_level_replica"):
        if getattr(args, name) not in trainer_log_levels:
            known = ", ".join(trainer_log_levels)
            raise ValueError(f"{name}: {getattr(args, name)!r} is not one of {known}")
    for switch in ("activation_checkpointing", "gradient_checkpointing"):
        given = getattr(args, f"{switch}_kwargs")
        if given and not (args.activation_checkpointing or args.gradient_checkpointing):
            raise ValueError(f"{switch}_kwargs: needs {switch}; give it, or leave it out")
        if unknown := set(given or {}) - CHECKPOINTING:
            known = ", ".join(sorted(CHECKPOINTING))
            raise ValueError(f"{switch}_kwargs: {min(unknown)} is not one of {known}")
    config = args.accelerator_config
    if config is not None and (not isinstance(config, dict) or set(config) - {"non_blocking"}):
        raise ValueError(
            "accelerator_config: takes only non_blocking here; the rest would change which rows a "
            "batch holds"
        )
    if args.ddp_backend and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise ValueError("ddp_backend: is for several processes; leave it out")


def check_compiling(args: TrainingArguments) -> None:
    """Refuse what ``torch.compile`` would stumble over in the first step.

    Raises:
        ValueError: It is not known, or there is no compiler.
    """
    backend, mode = args.torch_compile_backend, args.torch_compile_mode
    if not (args.torch_compile or backend or mode):
        return
    backends = [known.value.lower() for known in DynamoBackend if known != DynamoBackend.NO]
    for name, value, known in (("backend", backend, backends), ("mode", mode, COMPILE_MODES)):
        if value is not None and value not in known:
            raise ValueError(f"torch_compile_{name}: {value!r} is not one of {', '.join(known)}")
    if backend in (None, "inductor") and not which(os.environ.get("CXX", "g++")):
        raise ValueError(
            "torch_compile: needs a C++ compiler, and there is no g++ (or what CXX names); "
            "install it, or leave torch_compile out"
        )


def check_trackers(names: str | list[str]) -> None:
    """Refuse trackers that are not known or not installed.

    Raises:
        ValueError: One of ``report_to``.
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
        available = getattr(integration_utils, f"is_{name}_available", None)
        if available is not None and not available():
            raise ValueError(f"report_to: {name} is not installed; install it, or leave it out")
