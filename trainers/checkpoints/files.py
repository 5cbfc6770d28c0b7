"""Atomic checkpoints on disk: written aside, renamed when complete, verified by a manifest.

``checkpoint-8`` is written as ``.checkpoint-8.part``. Its manifest, with the size and SHA-256 of
every file, comes last; then the folder is renamed. So a run that is killed at any moment leaves
either a complete ``checkpoint-8`` or none, and later damage to a file shows against the manifest.
The final model is written to ``.model.part`` and moved into the run's folder file by file.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from common.hashing import file_digest
from common.run_files import (
    BEST_FILE,
    CONFIG_FILE,
    FUSION_FILE,
    MANIFEST_FILE,
    MODEL_PART,
    WEIGHT_FILES,
)

logger = logging.getLogger(__name__)


def checkpoints_in(output_dir: Path) -> dict[int, Path]:
    """The ``checkpoint-N`` folders of a run by N, lowest first."""
    found = {
        int(match[1]): path
        for path in output_dir.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and path.is_dir()
    }
    return dict(sorted(found.items()))


def has_optimizer(checkpoint: Path) -> bool:
    """Whether a run can be resumed from it: not with ``save_only_model``."""
    return any(checkpoint.glob("optimizer*")) or any(checkpoint.glob("global_step*"))


def part_path(checkpoint: Path) -> Path:
    """Where a checkpoint is written until it is complete."""
    return checkpoint.with_name(f".{checkpoint.name}.part")


def make_empty(folder: Path) -> None:
    """Make an empty folder, deleting what an earlier attempt left in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def write_manifest(folder: Path) -> None:
    """Write the manifest of all files, then flush everything to disk."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    text = json.dumps(files, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")
    _flush(folder)


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, beginning with the file's name; None: it is complete.

    Reads every file once.
    """
    try:
        content = json.loads((checkpoint / MANIFEST_FILE).read_text(encoding="utf-8"))
        files = {name: (int(it["bytes"]), str(it["sha256"])) for name, it in content.items()}
    except FileNotFoundError:
        return f"{MANIFEST_FILE} is missing, which is written last"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST_FILE} is damaged"
    for name, (size, digest) in files.items():
        file = checkpoint / name
        try:
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size} bytes instead of {size}"
            if file_digest(file) != digest:
                return (
                    f"{name} is not what was written (its SHA-256 differs from {MANIFEST_FILE}'s)"
                )
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def put_in_place(part: Path, checkpoint: Path) -> None:
    """Rename a complete part to its checkpoint, replacing one that an earlier attempt left.

    If the run is killed in between, the part is complete and ``clear_up`` finishes the job.
    """
    if checkpoint.exists():
        discard(checkpoint)
    part.rename(checkpoint)
    _sync(checkpoint.parent)


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint atomically: it is renamed first, so that no half of one is ever seen."""
    old = checkpoint.with_name(f".{checkpoint.name}.old")
    if old.exists():
        shutil.rmtree(old)
    checkpoint.rename(old)
    shutil.rmtree(old)


def set_aside(checkpoint: Path) -> list[Path]:
    """Rename a run's checkpoints after the one it goes back to; where they are now.

    Otherwise they would be taken for the last ones of the run that goes another way from there.
    """
    moved = []
    step = int(checkpoint.name.removeprefix("checkpoint-"))
    for other, path in checkpoints_in(checkpoint.parent).items():
        if other > step:
            names = (path.with_name(f"{path.name}.aside-{n}") for n in count(1))
            moved.append(path.rename(next(name for name in names if not name.exists())))
    return moved


def rotate(output_dir: Path, limit: int | None, kept: Iterable[Path]) -> None:
    """Delete the oldest checkpoints until ``limit`` are left, sparing ``kept``."""
    if not limit or limit < 1:
        return
    found = checkpoints_in(output_dir).values()
    others = [path for path in found if path not in set(kept)]
    for path in others[: max(0, len(found) - limit)]:
        discard(path)


def clear_up(output_dir: Path, resume: bool) -> None:
    """Remove what an interrupted run had not finished writing or deleting.

    Args:
        output_dir: The run's folder.
        resume: Keep a checkpoint that only lacked its final name, and give it that name.
    """
    removed = []
    for path in sorted(output_dir.glob(".checkpoint-*")):
        if resume and path.suffix == ".part" and find_damage(path) is None:
            put_in_place(path, path.with_name(path.name[1:].removesuffix(".part")))
        elif path.suffix in {".part", ".old"}:
            shutil.rmtree(path)
            removed.append(path.name)
    if (output_dir / MODEL_PART).is_dir():
        shutil.rmtree(output_dir / MODEL_PART)
        removed.append(MODEL_PART)
    if removed:
        logger.warning(
            "Removed incomplete files of an interrupted run in %s: %s",
            output_dir,
            ", ".join(removed),
        )


def put_model_in_place(output_dir: Path) -> None:
    """Move the final model from ``.model.part`` to the run's folder.

    ``config.json`` is removed first and moved last, so that at whatever moment the run is killed,
    half a model, or half of each of two, cannot be opened.
    """
    part = output_dir / MODEL_PART
    _flush(part)
    (output_dir / CONFIG_FILE).unlink(missing_ok=True)
    # A weight for fused scores, and the best checkpoint, were chosen of the models that were there.
    for name in (*WEIGHT_FILES, FUSION_FILE, BEST_FILE):
        for stale in output_dir.glob(name):
            stale.unlink()
    for path in sorted(part.rglob("*"), key=lambda path: path == part / CONFIG_FILE):
        target = output_dir / path.relative_to(part)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            path.replace(target)
    _sync(output_dir)
    shutil.rmtree(part)


def write_atomically(file: Path, text: str) -> None:
    """Write a text file atomically."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8")
    _sync(part)
    part.replace(file)


def _flush(folder: Path) -> None:
    """Return when everything in a folder is on disk."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
