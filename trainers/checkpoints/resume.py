"""Find the checkpoint to resume from, and refuse those that the run could not continue."""

import json
import logging
from pathlib import Path
from typing import Any

from common.run_files import CONFIG_FILE, RUN_FILE, STATE_FILE
from encoders.kinds import Kind, kind_of_folder
from trainers.checkpoints.files import checkpoints_in, clear_up, find_damage
from trainers.config.arguments import TandemArguments

logger = logging.getLogger(__name__)


def find_checkpoint(args: TandemArguments, kind: Kind) -> str:
    """The folder that ``resume_from_checkpoint`` means: a path, or true for the last one.

    Args:
        args: The run's arguments.
        kind: The kind of model that the run trains.

    Raises:
        ValueError: There is none, it is of another objective, or at the end of the run.
    """
    folder = Path(args.output_dir)
    clear_up(folder, resume=True)
    if args.resume_from_checkpoint in (True, "true", "True"):
        checkpoint = _last_whole(folder)
    else:
        checkpoint = Path(str(args.resume_from_checkpoint)).expanduser()
        _check_whole(checkpoint, folder)
    _check_objective(args, kind, checkpoint)
    _check_state(args, checkpoint)
    return str(checkpoint)


def _last_whole(folder: Path) -> Path:
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


def _check_whole(checkpoint: Path, folder: Path) -> None:
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
            f"resume_from_checkpoint: {checkpoint / name} {what}; {remedy}, or train on from its "
            f"model: --model_name_or_path {checkpoint}"
        )


def _check_objective(args: TandemArguments, kind: Kind, checkpoint: Path) -> None:
    """Refuse to continue another run's steps and optimizer."""
    remedy = f"or train on from its model: --model_name_or_path {checkpoint}"
    run_file = checkpoint.parent / RUN_FILE
    if run_file.is_file():
        theirs = _read(run_file).get("objective")
        if theirs != args.objective:
            raise ValueError(
                f"resume_from_checkpoint: {checkpoint} is of a run with objective {theirs}, this "
                f"one's is {args.objective}; give objective {theirs}, {remedy}"
            )
    found = kind_of_folder(checkpoint)
    if found != kind:
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} holds an {found} and objective {args.objective} "
            f"trains another kind of model; give the objective it was made with, {remedy}"
        )


def _check_state(args: TandemArguments, checkpoint: Path) -> None:
    """Refuse a checkpoint without optimizer state, or at the end of the run."""
    if not any(checkpoint.glob("optimizer*")) and not any(checkpoint.glob("global_step*")):
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} holds no optimizer state (save_only_model), "
            "without which the run cannot be continued exactly; train on from its model: "
            f"--model_name_or_path {checkpoint}"
        )
    adapted = (checkpoint / "adapter").is_dir()
    if adapted != (args.lora_r is not None):
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} is of a run {'with' if adapted else 'without'} "
            f"lora_r; {'give its lora_r' if adapted else 'leave lora_r out'}, or train on from its "
            f"model: --model_name_or_path {checkpoint}"
        )
    state, output_dir = read_state(checkpoint), Path(args.output_dir)
    # The state is the last that a run writes but for its model, which may be there before: killed
    # between the two, or with the state of a shorter run, it has still to be brought to its end.
    final = _read(output_dir / STATE_FILE) if (output_dir / STATE_FILE).is_file() else {}
    is_done = final.get("global_step") == state["global_step"]
    if is_at_end(args, state) and is_done and (output_dir / CONFIG_FILE).is_file():
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} is the end of the run (step "
            f"{state['global_step']}, epoch {state['epoch']:g}), whose model is in "
            f"{args.output_dir}; to train longer, {_longer(args, state)}"
        )


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The ``trainer_state.json`` of a checkpoint."""
    return _read(checkpoint / STATE_FILE)


def is_at_end(args: TandemArguments, state: dict[str, Any]) -> bool:
    """Whether a run of these arguments has nothing left to train."""
    if _waited(state) >= (args.early_stopping_patience or float("inf")):
        return True
    if args.max_steps > 0:
        return int(state.get("global_step", 0)) >= args.max_steps
    return float(state.get("epoch") or 0) >= args.num_train_epochs


def _waited(state: dict[str, Any]) -> int:
    """Evaluations since the best, as early stopping counts them."""
    saved = state.get("stateful_callbacks", {}).get("EarlyStoppingCallback", {})
    return int(saved.get("attributes", {}).get("early_stopping_patience_counter", 0))


def _longer(args: TandemArguments, state: dict[str, Any]) -> str:
    name = "max_steps" if args.max_steps > 0 else "num_train_epochs"
    if _waited(state) >= (args.early_stopping_patience or float("inf")):
        name = "early_stopping_patience"
    return f"raise {name} above {getattr(args, name)}"


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
