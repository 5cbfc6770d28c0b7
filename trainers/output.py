"""The folder of a run: what may stand in it before training, what is written beside the model."""

import json
import logging
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from trainers.arguments import TandemArguments

logger = logging.getLogger(__name__)

# The resolved arguments; its presence marks a folder as a run's. Written before training.
RUN_FILE = "train_config.json"
NOT_WRITTEN = {"resume_from_checkpoint", "overwrite_output_dir", "hub_token"}
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "sentence-transformers", "peft")


def prepare_output(args: TandemArguments) -> str | None:
    """Check ``output_dir`` and find the checkpoint to go on from.

    Returns:
        The checkpoint's folder, or None for a fresh run.

    Raises:
        ValueError: The folder holds another run, or no checkpoint although one was asked for.
    """
    folder = Path(args.output_dir)
    resume = args.resume_from_checkpoint
    if resume in (False, None, "false", "False"):
        _refuse_other_run(folder, args.overwrite_output_dir)
        return None
    if args.overwrite_output_dir:
        raise ValueError(
            "overwrite_output_dir: deletes the run that resume_from_checkpoint wants to go on "
            "with; give one of the two"
        )
    if resume in (True, "true", "True"):
        checkpoint = get_last_checkpoint(str(folder)) if folder.is_dir() else None
        if checkpoint is None:
            raise ValueError(
                f"resume_from_checkpoint: no checkpoint-N folder in {folder}; leave it out to "
                "start a fresh run"
            )
        return checkpoint
    if not (Path(str(resume)) / "trainer_state.json").is_file():
        raise ValueError(
            f"resume_from_checkpoint: {resume} is no checkpoint (it has no trainer_state.json); "
            f"give true for the last one in {folder}, or the path of a checkpoint-N folder"
        )
    return str(resume)


def _refuse_other_run(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"output_dir: {folder} is a file; give a folder")
    ours = (folder / RUN_FILE).is_file()
    if ours and overwrite:
        logger.warning("deleting the run in %s (overwrite_output_dir)", folder)
        shutil.rmtree(folder)
    elif (folder / "config.json").is_file() or (folder / "modules.json").is_file():
        remedy = "give another folder, or --overwrite_output_dir to delete it first"
        raise ValueError(
            f"output_dir: {folder} already holds a finished {'run' if ours else 'model'}; "
            + (remedy if ours else "give another folder")
        )
    elif get_last_checkpoint(str(folder)) is not None:
        raise ValueError(
            f"output_dir: {folder} holds checkpoints of an unfinished run; go on with it by "
            "--resume_from_checkpoint true, or give another folder"
            + (", or --overwrite_output_dir to delete it first" if ours else "")
        )


def write_run_file(args: TandemArguments) -> None:
    """Write the resolved arguments, which are a recipe themselves, and log the versions."""
    if args.process_index != 0:
        return
    recipe = {name: value for name, value in args.recipe.items() if name not in NOT_WRITTEN}
    versions = {name: _version(name) for name in PACKAGES}
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_FILE).write_text(
        json.dumps(recipe, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    logger.info("versions: %s", ", ".join(f"{k} {v}" for k, v in versions.items() if v))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
