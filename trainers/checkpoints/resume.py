"""Find the checkpoint to resume from, refuse one that cannot be resumed, compare its run."""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.run_files import CONFIG_FILE, RUN_FILE, STATE_FILE
from encoders.kinds import Kind, kind_of_folder
from trainers.checkpoints.files import checkpoints_in, clear_up, find_damage, has_optimizer
from trainers.config.arguments import METRIC_SCHEDULES, TandemArguments

logger = logging.getLogger(__name__)

# Settings that do not affect the weights.
_HARMLESS = re.compile(
    "output_dir|resume_from_checkpoint|overwrite|run_name|project|trackio.*|report_to|"
    "disable_tqdm|log.*|save_.*|push_to_hub|hub_.*|streaming|dataloader_(?!drop_last).*|tf32|enable_jit_.*"
)
# Settings that are loaded with the optimizer and the schedule of a checkpoint.
_IN_OPTIMIZER = {
    "learning_rate", "head_learning_rate", "weight_decay", "adam_beta1", "adam_beta2",
    "adam_epsilon", "optim_args",
}  # fmt: skip


def find_checkpoint(args: TandemArguments, kind: Kind) -> str:
    """The folder that ``resume_from_checkpoint`` means: a path, or true for the last one.

    Raises:
        ValueError: There is none, it is of another objective, or at the end of the run.
    """
    folder = Path(args.output_dir)
    clear_up(folder, resume=True)
    if args.resume_from_checkpoint in (True, "true", "True"):
        checkpoint = _last_complete(folder)
    else:
        checkpoint = Path(str(args.resume_from_checkpoint)).expanduser()
        _check_complete(checkpoint, folder)
    _check_objective(args, kind, checkpoint)
    _check_state(args, checkpoint)
    return str(checkpoint)


def _last_complete(folder: Path) -> Path:
    """The complete checkpoint of the most steps."""
    found = list(checkpoints_in(folder).values())
    if not found:
        raise ValueError(
            f"resume_from_checkpoint: no checkpoint-N folder in {folder}; leave it out to start a "
            "fresh run"
        )
    damages: list[str] = []
    for checkpoint in reversed(found):
        damage = find_damage(checkpoint)
        if damage is None:
            for text in damages:
                logger.warning("%s; resuming from %s", text, checkpoint.name)
            return checkpoint
        damages.append(f"{checkpoint.name} is damaged: {damage}")
    raise ValueError(
        f"resume_from_checkpoint: no checkpoint in {folder} is complete ({'; '.join(damages)}); "
        "start a fresh run in another folder"
    )


def _check_complete(checkpoint: Path, folder: Path) -> None:
    """Refuse what is no checkpoint, or a damaged one."""
    remedy = f"give true for the last complete one in {folder}"
    if not checkpoint.is_dir():
        raise ValueError(
            f"resume_from_checkpoint: there is no folder {checkpoint}; {remedy}, or the path of a "
            "checkpoint-N folder"
        )
    damage = find_damage(checkpoint)
    if damage is not None:
        name, _, what = damage.partition(" ")
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint / name} {what}; {remedy}, or start a new run "
            f"from its model: --model_name_or_path {checkpoint}"
        )


def _check_objective(args: TandemArguments, kind: Kind, checkpoint: Path) -> None:
    """Refuse to resume with another run's steps and optimizer."""
    remedy = f"or start a new run from its model: --model_name_or_path {checkpoint}"
    run_file = checkpoint.parent / RUN_FILE
    if run_file.is_file():
        run = _read(run_file)
        changed = [name for name in ("objective", "optim") if run.get(name) != args.recipe[name]]
        chosen = str(run.get("metric_for_best_model") or "loss").removeprefix("eval_")
        own = (args.metric_for_best_model or chosen).removeprefix("eval_")
        if read_state(checkpoint).get("best_metric") is not None and chosen != own:
            changed.append("metric_for_best_model")  # its best value so far is another metric's
        schedules = {args.recipe["lr_scheduler_type"], run.get("lr_scheduler_type")}
        if len(schedules) > 1 and schedules & METRIC_SCHEDULES:
            changed.append("lr_scheduler_type")  # the rate would stay what the other one left
        for name in changed:
            raise ValueError(
                f"resume_from_checkpoint: {checkpoint} is of a run with {name} {run.get(name)}, "
                f"this one's is {args.recipe[name]}; give {name} {run.get(name)}, {remedy}"
            )
        rate = run.get("head_learning_rate")
        if (rate is None) != (args.head_learning_rate is None):
            raise ValueError(
                f"resume_from_checkpoint: {checkpoint} was made with head_learning_rate {rate}, "
                "on which its optimizer state depends; give the same, "
                f"{remedy}"
            )
    found = kind_of_folder(checkpoint)
    if found != kind:
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} holds an {found} and objective {args.objective} "
            f"trains another kind of model; give the objective it was made with, {remedy}"
        )


def _check_state(args: TandemArguments, checkpoint: Path) -> None:
    """Refuse a checkpoint without optimizer state, or at the end of the run."""
    if not has_optimizer(checkpoint):
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} holds no optimizer state (save_only_model), "
            "without which the run cannot be resumed exactly; start a new run from its model: "
            f"--model_name_or_path {checkpoint}"
        )
    adapted = (checkpoint / "adapter").is_dir()
    if adapted != (args.lora_r is not None):
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} is of a run {'with' if adapted else 'without'} "
            f"lora_r; {'give its lora_r' if adapted else 'leave lora_r out'}, or start a new run "
            f"from its model: --model_name_or_path {checkpoint}"
        )
    state = read_state(checkpoint)
    best = best_checkpoint(args, state)
    if best is not None and not best.is_dir():
        raise ValueError(
            f"resume_from_checkpoint: {best}, the best so far, is missing, and "
            "load_best_model_at_end needs it; put it back, or give load_best_model_at_end false"
        )
    limit = limit_reached(args, state)
    if limit is not None and _is_complete(args, state):
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} is the end of the run (step "
            f"{state['global_step']}, epoch {state['epoch']:g}), whose model is in "
            f"{args.output_dir}; to train longer, raise {limit} above {getattr(args, limit)}"
        )


def _is_complete(args: TandemArguments, last: dict[str, Any]) -> bool:
    """Whether the run of a ``last`` checkpoint has written all: model, last evaluation and state.

    The state comes after the final model. One of a shorter run, or of one that went another way to
    the same step, says nothing: this run has still to be brought to its end.
    """
    step, log = last["global_step"], last.get("log_history", [])
    output_dir = Path(args.output_dir)
    if not all((output_dir / name).is_file() for name in (CONFIG_FILE, STATE_FILE)):
        return False
    final = read_state(output_dir)
    is_same = final.get("global_step") == step and final.get("log_history", [])[: len(log)] == log
    return is_same and (not args.eval_file or step in evaluated(final.get("log_history", [])))


def evaluated(log: Sequence[Mapping[str, Any]]) -> set[int]:
    """The steps whose evaluation is in a ``log_history``."""
    return {entry["step"] for entry in log if "eval_runtime" in entry}


def read_state(folder: Path) -> dict[str, Any]:
    """The ``trainer_state.json`` of a checkpoint or a run."""
    return _read(folder / STATE_FILE)


def best_checkpoint(args: TandemArguments, state: dict[str, Any]) -> Path | None:
    """The best checkpoint so far of a run that ends with its best model, if there is one.

    It is in the run's folder, which may have been moved, or where a run began that goes on here.
    """
    if not args.load_best_model_at_end or not state.get("best_model_checkpoint"):
        return None
    own = Path(args.output_dir) / f"checkpoint-{state.get('best_global_step')}"
    return own if own.is_dir() else Path(state["best_model_checkpoint"])


def limit_reached(args: TandemArguments, state: dict[str, Any]) -> str | None:
    """The setting by which a run has nothing left to train; None: it has."""
    saved = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    waited = saved.get("attributes", {}).get("early_stopping_patience_counter", 0)
    if waited >= (args.early_stopping_patience or float("inf")):
        return "early_stopping_patience"
    if args.max_steps > 0:
        return "max_steps" if state.get("global_step", 0) >= args.max_steps else None
    return "num_train_epochs" if (state.get("epoch") or 0) >= args.num_train_epochs else None


def compare_runs(args: TandemArguments, checkpoint: Path) -> None:
    """Warn of settings, and of a number of processes, that differ from the checkpoint's run.

    Raises:
        ValueError: Only one of the two runs uses FSDP, or in another form: the optimizer's state
            cannot be loaded.
    """
    _check_optimizer(checkpoint)
    if args.process_index != 0:
        return
    run_file = checkpoint.parent / RUN_FILE
    theirs = _read(run_file) if run_file.is_file() else {}
    _compare_processes(args, checkpoint, theirs)
    changed = {
        name: f"{name} {value} (it had {theirs[name]})"
        for name, value in json.loads(json.dumps(args.recipe)).items()
        if name in theirs and theirs[name] != value and not _HARMLESS.fullmatch(name)
    }
    if changed:
        waits = {"lr_scheduler_kwargs"} if args.lr_scheduler_type in METRIC_SCHEDULES else set()
        kept = ", ".join(name for name in changed if name in _IN_OPTIMIZER | waits)
        logger.warning(
            "resume_from_checkpoint: %s is of a run with other settings: %s. The remaining steps "
            "use the new settings%s; the result matches neither run",
            checkpoint, ", ".join(changed.values()),
            kept and f", except {kept}: the state of optimizer and schedule keeps the old value",
        )  # fmt: skip


def _compare_processes(args: TandemArguments, checkpoint: Path, theirs: dict[str, Any]) -> None:
    # One file for each process, or one without a number.
    processes = len(list(checkpoint.glob("rng_state_*.pth"))) or 1
    if processes == args.world_size:
        return
    sizes = ("per_device_train_batch_size", "gradient_accumulation_steps")
    before, now = processes, args.world_size
    for name in sizes:
        before, now = before * theirs.get(name, getattr(args, name)), now * getattr(args, name)
    rows = (
        "the order of the rows continues where it was"
        if before == now
        else f"a step takes {now} rows instead of {before}, so the run resumes at another "
        f"point of the epoch (to keep {before} rows, change {' or '.join(sizes)})"
    )
    logger.warning(
        "resume_from_checkpoint: %s is of a run on %d processes, and this one has %d: %s; dropout "
        "draws different random numbers",
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
                f"{other}, this one is launched with {kind}; launch it the same way, or start a "
                f"new run from its model: --model_name_or_path {checkpoint}"
            )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(
            f"resume_from_checkpoint: {file} is damaged (not a JSON object); take an earlier "
            "checkpoint"
        )
    return content
