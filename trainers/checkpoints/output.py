"""Prepare a run's output folder: refuse foreign files, find the checkpoint, write the recipe."""

import json
import logging
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import BaseFileLock, Timeout
from transformers.trainer_utils import get_last_checkpoint

from common.run_files import (
    CONFIG_FILE,
    DELETABLE,
    LOCK_FILE,
    LOG_FILE,
    MODEL_FILES,
    REJECTED_FILES,
    RUN_FILE,
    make_output_dir,
)
from encoders.kinds import Kind
from trainers.checkpoints.files import checkpoints_in, clear_up, set_aside, write_atomically
from trainers.checkpoints.resume import find_checkpoint
from trainers.config.arguments import TandemArguments

logger = logging.getLogger(__name__)

# Keys that concern this launch only, and secrets.
NOT_WRITTEN = {"resume_from_checkpoint", "overwrite", "hub_token"}
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "sentence-transformers", "peft")


def prepare_output(args: TandemArguments, kind: Kind) -> str | None:
    """Check ``output_dir``, which is locked, and find the checkpoint to resume from.

    Returns:
        The checkpoint's folder, or None for a fresh run.

    Raises:
        ValueError: The folder holds another run or rows to read, or has no checkpoint although one
            was asked for.
    """
    folder = Path(args.output_dir)
    _refuse_own_rows(args, folder)
    if args.resume_from_checkpoint in (False, None, "false", "False"):
        _refuse_other_run(args, folder)
        clear_up(folder, resume=False)
        return None
    if args.overwrite:
        raise ValueError(
            "overwrite: would delete the run that resume_from_checkpoint resumes; give one of "
            "the two"
        )
    checkpoint = find_checkpoint(args, kind)
    if Path(checkpoint).resolve().parent != folder.resolve():
        _refuse_other_run(args, folder)
    return checkpoint


def lock_folder(folder: Path, lock: BaseFileLock) -> None:
    """Create a run's folder and lock it: no other run may write into it until it is unlocked.

    Raises:
        ValueError: Another run writes into it, or it cannot be written to.
    """
    make_output_dir(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"output_dir: another run is writing into {folder}; wait until it ends, or give "
            "another folder"
        ) from None


def unlock_folder(lock: BaseFileLock) -> None:
    """Release and remove the lock of a run's folder, where this process holds it."""
    if lock.is_locked:
        with suppress(OSError):  # the folder has become read-only
            Path(lock.lock_file).unlink()
        lock.release()


def _refuse_own_rows(args: TandemArguments, folder: Path) -> None:
    """Do not write over, or delete, the rows that the run reads."""
    given = {name: getattr(args, name) or [] for name in ("train_file", "eval_file", "guard_file")}
    for number, entry in enumerate(args.train_files or []):
        path = entry if isinstance(entry, str) else entry.get("path") or []
        given[f"train_files[{number}].path"] = [path] if isinstance(path, str) else path
    written = (REJECTED_FILES, *(DELETABLE if args.overwrite else ()))
    own = {path.resolve() for pattern in written for path in folder.glob(pattern)}
    for key, files in given.items():
        for file in files:
            path = Path(file).expanduser().resolve()
            inside = path.iterdir() if path.is_dir() else ()
            if own & {path, *path.parents, *inside}:
                raise ValueError(
                    f"{key}: {file} would be overwritten by the run in {folder}; move it to "
                    "another folder"
                )


def _refuse_other_run(args: TandemArguments, folder: Path) -> None:
    ours = (folder / RUN_FILE).is_file()
    if ours and args.overwrite:
        _refuse_own_model(args, folder)
        for path in folder.glob(REJECTED_FILES):
            path.unlink()
    elif (folder / CONFIG_FILE).is_file() or (not ours and (folder / "modules.json").is_file()):
        remedy = "give another folder, or --overwrite to delete it first"
        raise ValueError(
            f"output_dir: {folder} already holds a finished {'run' if ours else 'model'}; "
            + (remedy if ours else "give another folder")
        )
    elif folder.is_dir() and get_last_checkpoint(str(folder)) is not None:
        raise ValueError(
            f"output_dir: {folder} holds checkpoints of an unfinished run; resume it with "
            "--resume_from_checkpoint true, or give another folder"
            + (", or --overwrite to delete it first" if ours else "")
        )
    elif not ours and (name := next((n for n in MODEL_FILES if (folder / n).exists()), None)):
        raise ValueError(
            f"output_dir: {folder} holds a {name} that no run wrote, and the model would "
            "overwrite it; give another folder"
        )


def _refuse_own_model(args: TandemArguments, folder: Path) -> None:
    """Do not delete the model that the run starts from."""
    model = Path(args.model_name_or_path).expanduser()
    if model.is_dir() and model.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"model_name_or_path: {model} lies in output_dir, which overwrite would delete; give "
            "another output_dir"
        )


def _delete_old_run(folder: Path) -> None:
    """Delete what an earlier run left, now that everything the new one needs is open."""
    for pattern in DELETABLE:
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    kept = [
        path.name
        for path in sorted(folder.iterdir())
        if path.name not in (LOCK_FILE, LOG_FILE, RUN_FILE) and not path.match(REJECTED_FILES)
    ]
    logger.warning("deleted the old run in %s (overwrite)", folder)
    if kept:
        logger.warning("kept files not written by a run: %s", ", ".join(kept))


def _set_aside(checkpoint: Path, output_dir: Path) -> None:
    is_own = checkpoint.resolve() in map(Path.resolve, checkpoints_in(output_dir).values())
    if is_own and (moved := set_aside(checkpoint)):
        logger.warning(
            "this run resumes from %s; later checkpoints are set aside: %s",
            checkpoint.name, ", ".join(path.name for path in moved),
        )  # fmt: skip


def write_run_file(args: TandemArguments, checkpoint: str | None = None) -> None:
    """Write the resolved arguments, which are a recipe themselves, and log the versions.

    With ``overwrite`` the run that the folder holds is deleted first. A run that goes back to an
    earlier ``checkpoint`` of the folder sets the later ones aside.
    """
    if args.process_index != 0:
        return
    if checkpoint is not None:
        logger.info("resuming from %s", checkpoint)
        _set_aside(Path(checkpoint), Path(args.output_dir))
    recipe = {name: value for name, value in args.recipe.items() if name not in NOT_WRITTEN}
    folder = Path(args.output_dir)
    if args.overwrite and (folder / RUN_FILE).is_file():
        _delete_old_run(folder)
    write_atomically(folder / RUN_FILE, json.dumps(recipe, ensure_ascii=False, indent=2) + "\n")
    versions = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    logger.info("versions: %s", ", ".join(versions))
