"""The folder of a run: what may stand in it before training, what is written beside the model."""

import json
import logging
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint

from trainers.checkpoints.files import OPENED_BY, clear_up, write_whole
from trainers.checkpoints.resume import RUN_FILE, find_checkpoint
from trainers.checkpoints.run_log import LOG_FILE
from trainers.config.arguments import TandemArguments

logger = logging.getLogger(__name__)

NOT_WRITTEN = {"resume_from_checkpoint", "overwrite_output_dir", "hub_token"}
PACKAGES = ("torch", "transformers", "accelerate", "datasets", "sentence-transformers", "peft")
# The bad rows, written anew while the files are read.
REJECTED = "rejected_*.jsonl"
# What else a run leaves. Nothing that is not named here is ever deleted.
LEFT_BY_A_RUN = (
    "checkpoint-*", ".checkpoint-*.part", ".checkpoint-*.old", ".model.part",
    "runs", "trainer_state.json", "training_args.bin", "best_checkpoint.json",
    "evaluation.json", "report.html", "figures", "run.trec",
    "README.md", "config.json", "generation_config.json", "modules.json",
    "model*.safetensors", "model.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "*.model", "chat_template.jinja", "sentence_bert_config.json",
    "config_sentence_transformers.json", "[0-9]_Pooling", "[0-9]_Dense", "[0-9]_Normalize",
    "adapter",
)  # fmt: skip


def prepare_output(args: TandemArguments) -> str | None:
    """Check ``output_dir``, make it, and find the checkpoint to go on from.

    Returns:
        The checkpoint's folder, or None for a fresh run.

    Raises:
        ValueError: The folder holds another run, cannot be written to, or has no checkpoint
            although one was asked for.
    """
    folder = Path(args.output_dir)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output_dir: {folder} is a file; give a folder")
    if args.resume_from_checkpoint in (False, None, "false", "False"):
        _refuse_other_run(args, folder)
        _make(folder)
        clear_up(folder, go_on=False)
        return None
    if args.overwrite_output_dir:
        raise ValueError(
            "overwrite_output_dir: deletes the run that resume_from_checkpoint wants to go on "
            "with; give one of the two"
        )
    checkpoint = find_checkpoint(args)
    if Path(checkpoint).resolve().parent != folder.resolve():
        _refuse_other_run(args, folder)
    _make(folder)
    return checkpoint


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"output_dir: {folder} cannot be written to ({error.strerror}); give another folder"
        ) from None


def _refuse_other_run(args: TandemArguments, folder: Path) -> None:
    ours = (folder / RUN_FILE).is_file()
    if ours and args.overwrite_output_dir:
        _refuse_own_model(args, folder)
        for path in folder.glob(REJECTED):
            path.unlink()
    elif (folder / OPENED_BY).is_file() or (not ours and (folder / "modules.json").is_file()):
        remedy = "give another folder, or --overwrite_output_dir to delete it first"
        raise ValueError(
            f"output_dir: {folder} already holds a finished {'run' if ours else 'model'}; "
            + (remedy if ours else "give another folder")
        )
    elif folder.is_dir() and get_last_checkpoint(str(folder)) is not None:
        raise ValueError(
            f"output_dir: {folder} holds checkpoints of an unfinished run; go on with it by "
            "--resume_from_checkpoint true, or give another folder"
            + (", or --overwrite_output_dir to delete it first" if ours else "")
        )
    elif not ours and (folder / "README.md").is_file():
        raise ValueError(
            f"output_dir: {folder} holds a README.md that is not of a run, and the model card "
            "would be written over it; give another folder"
        )


def _refuse_own_model(args: TandemArguments, folder: Path) -> None:
    """Not to delete the model that the run is to begin with."""
    model = Path(args.model_name_or_path).expanduser()
    if model.is_dir() and model.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"model_name_or_path: {model} lies in output_dir, whose run overwrite_output_dir "
            "deletes; give another output_dir"
        )


def _delete_old_run(folder: Path) -> None:
    """Delete what an earlier run left, now that everything the new one needs is open."""
    for pattern in LEFT_BY_A_RUN:
        for path in folder.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    kept = [
        path.name
        for path in sorted(folder.iterdir())
        if path.name not in (LOG_FILE, RUN_FILE) and not path.match(REJECTED)
    ]
    logger.warning("deleted the old run in %s (overwrite_output_dir)", folder)
    if kept:
        logger.warning("left as they are, as no run writes them: %s", ", ".join(kept))


def write_run_file(args: TandemArguments) -> None:
    """Write the resolved arguments, which are a recipe themselves, and log the versions.

    With ``overwrite_output_dir`` the run that the folder holds is deleted first.
    """
    if args.process_index != 0:
        return
    recipe = {name: value for name, value in args.recipe.items() if name not in NOT_WRITTEN}
    versions = {name: _version(name) for name in PACKAGES}
    folder = Path(args.output_dir)
    if args.overwrite_output_dir and (folder / RUN_FILE).is_file():
        _delete_old_run(folder)
    write_whole(folder / RUN_FILE, json.dumps(recipe, ensure_ascii=False, indent=2) + "\n")
    logger.info("versions: %s", ", ".join(f"{k} {v}" for k, v in versions.items() if v))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
