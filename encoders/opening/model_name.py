"""Resolve a model name: a folder, a name on the Hub, or ``package://`` in an installed package."""

import importlib.util
import logging
import os
from functools import cache
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from common.json_files import read_json, read_settings
from common.run_files import BEST_FILE
from encoders.export import is_onnx

logger = logging.getLogger(__name__)

PACKAGE = "package://"
# Weights of other frameworks, and pickles, which can execute code when they are loaded.
NOT_NEEDED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.ot", "*.gguf"]


def resolve_model(name_or_path: str, revision: str | None = None) -> Path:
    """The folder of a model, downloaded from the Hub if it is not on this machine.

    Args:
        name_or_path: A folder, ``package://<module>/<path>`` or ``organisation/name``.
        revision: Branch, tag or commit on the Hub.

    Raises:
        ValueError: There is no such model, or it has no safetensors weights.
    """
    if name_or_path.startswith(PACKAGE):
        folder = _in_package(name_or_path)
    elif (given := Path(os.path.expanduser(name_or_path))).is_dir():
        folder = given
    else:
        folder = _from_hub(name_or_path, revision)
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ValueError(
            f"{name_or_path} holds no model (no config.json in {folder}); give "
            "a folder saved by save_pretrained, or a name on the Hub"
        )
    if not any(folder.rglob("*.safetensors")) and not is_onnx(folder):
        raise ValueError(
            f"{name_or_path} holds no safetensors weights (pickled .bin files "
            "are not read: they can run code); open it once with transformers and save it with "
            "save_pretrained(folder), or name a revision that has safetensors as model_revision"
        )
    return folder


def is_classifier(folder: Path) -> bool:
    """Whether a folder was saved from a sequence classifier, by its ``config.json``.

    There is none where the backbone has a folder of its own (release 2 of sentence-transformers).
    """
    names = read_json(folder / "config.json").get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def is_multi_vector(folder: Path) -> bool:
    """Whether a folder was saved from a late-interaction model of sentence-transformers or PyLate.

    Raises:
        ValueError: ``config_sentence_transformers.json`` is damaged.
    """
    settings = read_settings(folder / "config_sentence_transformers.json")
    return settings.get("model_type") in ("MultiVectorEncoder", "ColBERT")


def warn_if_not_best(name_or_path: str) -> None:
    """Warn, once, where a run's final model is used although a checkpoint is marked as its best.

    Raises:
        ValueError: The file that names the best checkpoint is damaged.
    """
    noted = read_json(Path(name_or_path).expanduser() / BEST_FILE)
    best = noted.get("checkpoint", ".") if isinstance(noted, dict) else "."
    if best != ".":
        _warn_once(name_or_path, best)


@cache
def _warn_once(run: str, best: str) -> None:
    logger.warning(
        "%s: using its final model, although scripts/serve.py serves its %s (%s)",
        run, best, BEST_FILE,
    )  # fmt: skip


def _in_package(name: str) -> Path:
    module, _, path = name.removeprefix(PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a package without its parent; no name of a package
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"{name} names the Python package {module!r}, which is not "
            f"installed here; pip install {module.replace('_', '-')}"
        )
    folder = Path(spec.submodule_search_locations[0]) / path
    if not folder.is_dir():
        raise ValueError(f"{name}: the package {module} has no folder {path!r}")
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=NOT_NEEDED))
    except HFValidationError:
        raise ValueError(f"{name} is neither a folder here nor a name on the Hub") from None
    except LocalEntryNotFoundError:
        raise ValueError(
            f"{name} is not a folder here, and the Hub cannot be reached to "
            "fetch it; check the path and the network (HF_HUB_OFFLINE, HF_ENDPOINT)"
        ) from None
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} is not a folder here, and the Hub does not give it: {reason}"
        ) from None
