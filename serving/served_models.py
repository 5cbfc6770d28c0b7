"""Resolve the models to serve: a run's best checkpoint, its kind, its public name."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.json_files import read_json
from common.run_files import BEST_FILE, FUSION_FILE, RUN_FILE
from encoders.kinds import KINDS, Kind, detect_kind
from encoders.opening.model_name import resolve_model

logger = logging.getLogger(__name__)


class ModelToServe(NamedTuple):
    """A model to open: its kind, where it is, and its public name."""

    kind: Kind
    folder: str
    name: str


def find_models(
    given: Sequence[tuple[str, Kind | None]],
    baseline: str | None,
    name: str | None,
    trust_remote_code: bool = False,
    stores: bool = False,
) -> dict[str, ModelToServe]:
    """Find the models by role: "embedder", "reranker", and the same with "_baseline".

    Args:
        given: Folders, runs or names, each with the kind that it must be of.
        baseline: One more, to compare with.
        name: What clients are told of the first; None: after the folder.
        trust_remote_code: Whether models may need Python code of their own.
        stores: Whether a store is searched.

    Raises:
        ValueError: A model that is not there, or of another kind.
    """
    found: dict[str, ModelToServe] = {}
    for model, asked in given:
        folder, why = find_served(model)
        kind = check_kind(folder, asked, trust_remote_code, stores)
        found[role_of(kind, asked, stores)] = ModelToServe(kind, folder, name or short_name(model))
        logger.info("serving the %s %s (%s)", kind, folder, why)
    if baseline is not None:
        folder, why = find_served(baseline)
        kind = check_kind(folder, None, trust_remote_code)
        alike = [role for role, served in found.items() if served.kind == kind]
        role = alike[0] if alike else role_of(kind, None, stores)
        if role not in found:
            raise ValueError(
                f"--baseline: {baseline} is of kind {kind}, and no such model is served; give a "
                "model of the kind that is served"
            )
        found[f"{role}_baseline"] = ModelToServe(kind, folder, short_name(baseline))
        logger.info("comparing with %s (%s)", folder, why)
    return found


def role_of(kind: Kind, asked: Kind | None, stores: bool) -> str:
    """The role of a model: that of its kind, but a multi-vector encoder may search a store."""
    searches = stores and asked != "reranker" and not KINDS[kind].reads_pairs
    return "embedder" if searches else KINDS[kind].role


def find_served(name: str) -> tuple[str, str]:
    """Find the folder to serve, of a run its best model, and why it is this one.

    Raises:
        ValueError: The run has no such model, has not ended, or its scores are fused by a weight
            that is another model's.
    """
    folder = Path(name).expanduser()
    if (folder / BEST_FILE).is_file():
        noted = read_json(folder / BEST_FILE)
        best = noted.get("checkpoint") if isinstance(noted, dict) else None
        if not isinstance(best, str) or not (folder / best).is_dir():
            fault = "names no checkpoint" if best is None else f"{best} is not there any more"
            raise ValueError(
                f"{folder / BEST_FILE}: {fault}; run scripts/evaluate.py --checkpoints "
                "--select_best again, or delete the file"
            )
        if (folder / best).resolve() != folder.resolve() and (folder / FUSION_FILE).is_file():
            raise ValueError(
                f"{folder / FUSION_FILE}: is of the final model, and {BEST_FILE} names {best}; "
                f"choose a weight for that (scripts/fuse.py --model {folder / best}) and delete "
                "this one"
            )
        value = noted.get("value")
        known = isinstance(value, int | float)
        about = f"{noted.get('metric')} {value:.4f}" if known else "as noted"
        return str(folder / best), f"the run's best: {about}, {BEST_FILE}"
    if not (folder / RUN_FILE).is_file():
        return name, "as given"
    if not any(folder.glob("*.json*")) or not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder}: this run has no final model; give one of its checkpoint-N folders"
        )
    return str(folder), f"the run's final model; there is no {BEST_FILE}"


def check_kind(
    folder: str, asked: Kind | None, trust_remote_code: bool = False, stores: bool = False
) -> Kind:
    """Return the kind of a model.

    Raises:
        ValueError: It is another kind than asked for, needs Python code of its own, or its
            config.json is damaged.
    """
    config = resolve_model(folder) / "config.json"
    content = read_json(config)
    if not isinstance(content, dict):
        raise ValueError(f"{config}: must be an object")
    if "auto_map" in content and not trust_remote_code:
        raise ValueError(
            f"{config}: the model brings Python code of its own (auto_map), which is not run; if "
            "you trust it, give --trust_remote_code true"
        )
    kind = detect_kind(folder)
    if asked is None or asked in (kind, KINDS[kind].role, role_of(kind, asked, stores)):
        return kind
    if content.get("architectures"):
        raise ValueError(
            f"{folder}: cannot be served as {asked} (config.json: "
            f"{', '.join(content['architectures'])}), only as {kind}"
        )
    return asked


def short_name(name: str) -> str:
    """Return the public name of a model, without paths of this machine."""
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser().resolve().name
    return name.rpartition("://")[2]
