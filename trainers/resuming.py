"""The checkpoint that a run goes on from: found, and refused where the run could not go on."""

import json
import logging
import re
from pathlib import Path
from typing import Any

from trainers.arguments import TandemArguments

logger = logging.getLogger(__name__)

# The resolved arguments of a run, in its folder.
RUN_FILE = "train_config.json"
# Written last into a checkpoint, so that one without it is not whole.
STATE_FILE = "trainer_state.json"


def find_checkpoint(args: TandemArguments) -> str:
    """The folder that ``resume_from_checkpoint`` means: a path, or true for the last one.

    Raises:
        ValueError: There is none, it is of another objective, or at the end of the run.
    """
    folder = Path(args.output_dir)
    if args.resume_from_checkpoint in (True, "true", "True"):
        checkpoint = _last_whole(folder, quiet=args.process_index != 0)
    else:
        checkpoint = Path(str(args.resume_from_checkpoint)).expanduser()
        if not (checkpoint / STATE_FILE).is_file():
            raise ValueError(
                f"resume_from_checkpoint: {checkpoint} is no checkpoint (it has no {STATE_FILE}); "
                f"give true for the last one in {folder}, or the path of a checkpoint-N folder"
            )
    _check_objective(args, checkpoint)
    _check_state(args, checkpoint)
    return str(checkpoint)


def _last_whole(folder: Path, quiet: bool) -> Path:
    """The checkpoint of the most steps that was written to its end."""
    found = {
        int(match[1]): path
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and path.is_dir()
    }
    whole = [step for step, path in found.items() if (path / STATE_FILE).is_file()]
    if not found:
        raise ValueError(
            f"resume_from_checkpoint: no checkpoint-N folder in {folder}; leave it out to start a "
            "fresh run"
        )
    if not whole:
        raise ValueError(
            f"resume_from_checkpoint: no checkpoint in {folder} is whole (none has a {STATE_FILE}: "
            "the run was stopped while it wrote them); start a fresh run in another folder"
        )
    broken = [found[step].name for step in sorted(found) if step > max(whole)]
    if broken and not quiet:
        logger.warning(
            "%s is not whole, as the run was stopped while it was written; going on from %s",
            ", ".join(broken), found[max(whole)].name,
        )  # fmt: skip
    return found[max(whole)]


def _check_objective(args: TandemArguments, checkpoint: Path) -> None:
    """Refuse to go on with another run's steps and optimiser."""
    remedy = f"or train on from its model: --model_name_or_path {checkpoint}"
    run_file = checkpoint.parent / RUN_FILE
    if run_file.is_file():
        theirs = _read(run_file).get("objective")
        if theirs != args.objective:
            raise ValueError(
                f"resume_from_checkpoint: {checkpoint} is of a run with objective {theirs}, this "
                f"one's is {args.objective}; give objective {theirs}, {remedy}"
            )
    kind = "embedder" if (checkpoint / "modules.json").is_file() else "reranker"
    if kind != args.row_of_table.model:
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} holds an {kind} and objective {args.objective} "
            f"trains another kind of model; give the objective it was made with, {remedy}"
        )


def _check_state(args: TandemArguments, checkpoint: Path) -> None:
    """Refuse a checkpoint that lacks what a run goes on with, or has nothing left to do."""
    if not any(checkpoint.glob("optimizer*")) and not any(checkpoint.glob("global_step*")):
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} holds no state of the optimiser "
            "(save_only_model), without which the run would not go on as it was; train on from "
            f"its model: --model_name_or_path {checkpoint}"
        )
    adapted = (checkpoint / "adapter").is_dir()
    if adapted != (args.lora_r is not None):
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} is of a run {'with' if adapted else 'without'} "
            f"lora_r; {'give its lora_r' if adapted else 'leave lora_r out'}, or train on from its "
            f"model: --model_name_or_path {checkpoint}"
        )
    state = _read(checkpoint / STATE_FILE)
    step, epoch = int(state.get("global_step", 0)), float(state.get("epoch") or 0)
    limited = args.max_steps > 0
    if step >= args.max_steps if limited else epoch >= args.num_train_epochs:
        name = "max_steps" if limited else "num_train_epochs"
        raise ValueError(
            f"resume_from_checkpoint: {checkpoint} is the end of the run (step {step}, epoch "
            f"{epoch:g}) and holds its model; to train longer, raise {name} above "
            f"{getattr(args, name)}"
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
