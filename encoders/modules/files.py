"""Read and write the sentence-transformers modules after a backbone.

A folder lists them in ``modules.json``. All formats of releases 2 to 6 are read. The format of 2 to
5.1 is written wherever it can express a module (``sentence_transformers.models.*``, pooling as
flags, ``max_seq_length``): 6.2 and other readers open it too, while that of 6 does not open in 5.1.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from sentence_transformers.base.modules import Dense, Module, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Pooling,
    WeightedLayerPooling,
)
from sentence_transformers.util.misc import import_module_class
from torch import Tensor

from common.json_files import read_entries, read_json, read_settings, write_json
from common.run_files import make_weights_readable

# Modules that treat every token, or every text, by itself: they can run on packed sequences.
PACKABLE: tuple[type[Module], ...] = (
    Pooling,
    Dense,
    Normalize,
    LayerNorm,
    Dropout,
    WeightedLayerPooling,
)
# Those of a multi-vector encoder, all of tokens.
OF_TOKENS: tuple[type[Module], ...] = (Dense, MultiVectorMask, Normalize)
OLD_NAMES = "sentence_transformers.models."
# Pooling's flags in the form that 5.1 reads; it concatenates several in this order.
POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
OTHER_MODELS = {
    "MultiVectorEncoder": "a late-interaction model, to be opened as kind multi_vector",
    "ColBERT": "a late-interaction model of PyLate",
    "SparseEncoder": "a sparse encoder (SPLADE's kind)",
    "CrossEncoder": "a reranker",
}


@dataclass
class ModuleFolder:
    """How a folder turns a backbone into an embedder or a multi-vector encoder.

    Args:
        backbone: The backbone's own folder.
        modules: After the backbone, in order; None for a plain backbone.
        settings: The content of ``config_sentence_transformers.json``.
    """

    backbone: Path
    modules: list[Module] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def read_folder(
    folder: Path, trust_remote_code: bool = False, multi_vector: bool = False
) -> ModuleFolder:
    """Read an embedder's folder; one without ``modules.json`` is a plain backbone.

    Args:
        folder: The model's.
        trust_remote_code: Whether modules of other libraries, or of the folder, may be imported.
        multi_vector: Whether it is a multi-vector encoder's.

    Raises:
        ValueError: The folder has a module that is not supported; the message names it.
    """
    file = folder / "modules.json"
    if not file.is_file():
        return ModuleFolder(folder)
    settings = read_settings(folder / "config_sentence_transformers.json")
    if multi_vector and settings.get("model_type") == "ColBERT":
        raise ValueError(
            f"{folder / 'config_sentence_transformers.json'}: model_type ColBERT is PyLate's form, "
            "which is not read here; open it once with sentence-transformers' MultiVectorEncoder "
            "and save it again"
        )
    if not multi_vector:
        _check_settings(folder / "config_sentence_transformers.json", settings)
    first, *rest = read_entries(file)
    if first["type"].rpartition(".")[2] != "Transformer" or not _is_of_sentence_transformers(
        first["type"]
    ):
        raise ValueError(
            f"{file}: the first module is {first['type']}; what can be trained and run here begins "
            "with sentence-transformers' Transformer"
        )
    known = OF_TOKENS if multi_vector else PACKABLE
    modules = [_open(folder, entry, trust_remote_code, known) for entry in rest]
    if not multi_vector and not any(isinstance(module, Pooling) for module in modules):
        raise ValueError(
            f"{file}: there is no Pooling among the modules "
            f"({', '.join(entry['type'] for entry in rest) or 'none'}): such a model has a vector "
            "for each token (kind multi_vector, late interaction); an embedder has one of each text"
        )
    return ModuleFolder(folder / first["path"], modules, settings)


def _check_settings(file: Path, settings: dict[str, Any]) -> None:
    kind = settings.get("model_type", "SentenceTransformer")
    if kind in OTHER_MODELS:
        raise ValueError(f"{file}: model_type {kind} is {OTHER_MODELS[kind]}, not an embedder")
    if str(settings.get("similarity_fn_name")).lower() == "maxsim":
        raise ValueError(
            f"{file}: similarity_fn_name {settings['similarity_fn_name']} is late interaction "
            "(kind multi_vector): a vector for each token; an embedder has one of each text"
        )


def _is_of_sentence_transformers(name: str) -> bool:
    return name.startswith("sentence_transformers.")


def _open(
    folder: Path, entry: dict[str, Any], trust_remote_code: bool, known: tuple[type[Module], ...]
) -> Module:
    """Open one module; without trust only classes of sentence-transformers are imported."""
    file, name = folder / "modules.json", entry["type"]
    path = folder / entry["path"]
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{file}: the path {entry['path']} leads out of the folder")
    if not _is_of_sentence_transformers(name) and not trust_remote_code:
        raise ValueError(
            f"{file}: module {name} is not one of sentence-transformers, and its code is not run; "
            "if you trust it, give trust_remote_code"
        )
    if any(path.glob("*.bin")) and not (path / "model.safetensors").is_file():
        raise ValueError(
            f"{path} holds no safetensors weights (pickled .bin files are not read: they can run "
            "code); open the model once with sentence-transformers and save it again"
        )
    try:
        kind: Any = import_module_class(name, str(folder), trust_remote_code=trust_remote_code)
    except (ImportError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"{file}: module {name} cannot be imported: {error}") from error
    if kind not in known and (_is_of_sentence_transformers(name) or known is OF_TOKENS):
        what = "a multi-vector encoder" if known is OF_TOKENS else "an embedder"
        raise ValueError(
            f"{file}: module {name} cannot be trained or run here; {what} is made of "
            + ", ".join(own.__name__ for own in (Transformer, *known))
        )
    if kind is Dense and not trust_remote_code:
        _check_dense(path / "config.json")
    try:
        module: Module = kind.load(
            str(folder), subfolder=entry["path"], local_files_only=True,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
    except Exception as error:  # third-party code may raise anything
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: module {name} in {path} cannot be opened: {reason}") from error
    return module


def _check_dense(file: Path) -> None:
    """Refuse settings that sentence-transformers would ignore or replace with a warning."""
    config = read_json(file)
    activation = config.get("activation_function", "torch.")
    if not str(activation).startswith("torch."):
        raise ValueError(
            f"{file}: activation_function {activation} is not one of torch's, and its code is not "
            "run; if you trust it, give trust_remote_code"
        )
    known = {"in_features", "out_features", "bias", "activation_function"}
    if unknown := sorted(config.keys() - known - set(Dense.config_keys)):
        raise ValueError(f"{file}: {', '.join(unknown)} is not a setting of a Dense module")


def write_modules(
    folder: Path,
    modules: Sequence[Module],
    weights: dict[str, Tensor],
    settings: dict[str, Any],
    prompts: dict[str, str],
    limits: dict[str, Any],
) -> None:
    """Write modules and settings next to a backbone that was saved in ``folder`` itself.

    Args:
        folder: The model's.
        modules: After the backbone.
        weights: The model's state dict, in which they are the ``nn.ModuleList`` "head".
        settings: For ``config_sentence_transformers.json``.
        prompts: The model's, for the same file.
        limits: For ``sentence_bert_config.json``: ``max_seq_length`` and ``do_lower_case``.
    """
    stated, default = {"query": "", "document": "", **prompts}, settings.get("default_prompt_name")
    if default not in stated:
        default = None  # the user has replaced the prompts
    settings = {**settings, "default_prompt_name": default, "prompts": stated}
    entries = [{"idx": 0, "name": "0", "path": "", "type": f"{OLD_NAMES}Transformer"}]
    for at, module in enumerate(modules):
        kind = type(module)
        path = f"{at + 1}_{kind.__name__}"
        config, old = _old_config(module)
        (folder / path).mkdir(parents=True, exist_ok=True)
        if kind is not Normalize or not old:
            write_json(folder / path / "config.json", config)
        own = {
            name.removeprefix(f"head.{at}."): weight.detach().cpu().contiguous()
            for name, weight in weights.items()
            if name.startswith(f"head.{at}.")
        }
        if own:
            save_file(own, folder / path / "model.safetensors", metadata={"format": "pt"})
        name = f"{OLD_NAMES}{kind.__name__}" if old else _module_name(kind, folder / path)
        entries.append({"idx": at + 1, "name": str(at + 1), "path": path, "type": name})
    write_json(folder / "modules.json", entries)
    write_json(folder / "sentence_bert_config.json", limits)
    write_json(folder / "config_sentence_transformers.json", settings)
    make_weights_readable(folder)


def _old_config(module: Module) -> tuple[dict[str, Any], bool]:
    """A module's settings, in the format of 5.1 if that can express them, and whether it can."""
    config = module.get_config_dict()
    if isinstance(module, Pooling):
        modes = pooling_modes(module)
        if modes != [mode for mode in POOLING_FLAGS if mode in modes]:
            return config, False
        return {
            "word_embedding_dimension": module.embedding_dimension,
            **{flag: mode in modes for mode, flag in POOLING_FLAGS.items()},
            "include_prompt": module.include_prompt,
        }, True
    if isinstance(module, WeightedLayerPooling):
        config["word_embedding_dimension"] = config.pop("embedding_dimension")
    names = {config.get(key) for key in ("module_input_name", "module_output_name")}
    if not names <= {None, "sentence_embedding"} or config.get("use_residual"):
        return config, False
    config = {key: value for key, value in config.items() if not key.startswith("module_")}
    return config, type(module) in PACKABLE


def _module_name(kind: type[Module], folder: Path) -> str:
    """A class's name in ``modules.json``; code from the model's own folder is copied along."""
    if kind.__module__.startswith("transformers_modules."):
        source = Path(str(sys.modules[kind.__module__].__file__))
        shutil.copy(source, folder.parent / source.name)
        return f"{source.stem}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__name__}"


def pooling_modes(module: Pooling) -> list[str]:
    """The names of its pooling modes, whose vectors are concatenated."""
    modes = module.pooling_mode
    return [modes] if isinstance(modes, str) else list(modes)
