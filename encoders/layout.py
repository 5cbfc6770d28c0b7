"""The sentence-transformers folder layout: what stands around a backbone's own files.

Read in every form that releases 2 to 6 have written. Written in the form of 2 to 5.1 (module
names ``sentence_transformers.models.*``, pooling as flags, ``max_seq_length``), which today's
release and other readers of the layout still load; the newest form does not load in 5.1.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from encoders.pooling import POOLINGS, Pooling
from encoders.projection import Projection

# Their name -> ours, both ways.
POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
UNUSED_FLAGS = [
    "pooling_mode_max_tokens",
    "pooling_mode_mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens",
]
POOLING_MODES = {"cls": "cls", "mean": "mean", "lasttoken": "last"}


@dataclass
class Layout:
    """What a folder says about turning a backbone into an embedder.

    Args:
        backbone: Folder of the backbone, within the model's folder.
        pooling: None where the folder says nothing (a plain backbone).
        projection: To another width, or None.
        normalize: Whether embeddings are brought to unit length; None where nothing is said.
        prompts: Prompt name ("query", "document", ...) -> text put before each text.
        max_length: Tokens, or None.
    """

    backbone: str = ""
    pooling: Pooling | None = None
    projection: Projection | None = None
    normalize: bool | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    max_length: int | None = None


def read_layout(folder: Path) -> Layout:
    """Read what is said in ``folder``; a plain backbone gives an empty ``Layout``.

    Raises:
        ValueError: The folder has a part that this project cannot run.
    """
    layout = Layout()
    if not (folder / "modules.json").is_file():
        return layout
    layout.normalize = False
    for module in _read(folder / "modules.json"):
        kind, path = module["type"].rpartition(".")[2], module["path"]
        if kind == "Transformer":
            layout.backbone = path
        elif kind == "Pooling":
            layout.pooling = _read_pooling(folder / path / "config.json")
        elif kind == "Dense":
            layout.projection = Projection.read(folder / path)
        elif kind == "Normalize":
            layout.normalize = True
        else:
            raise ValueError(
                f"{folder / 'modules.json'}: module {module['type']} cannot be run here; an "
                "embedder is made of Transformer, Pooling, Dense and Normalize"
            )
    general = folder / "config_sentence_transformers.json"
    if general.is_file():
        layout.prompts = {k: v for k, v in (_read(general).get("prompts") or {}).items() if v}
    limits = folder / layout.backbone / "sentence_bert_config.json"
    if limits.is_file():
        layout.max_length = _read(limits).get("max_seq_length")
    return layout


def write_layout(
    folder: Path, layout: Layout, width: int, projection_weights: dict[str, Tensor]
) -> None:
    """Write ``layout`` beside a backbone that was saved at the top of ``folder``.

    Args:
        folder: The model's folder.
        layout: With ``pooling`` and ``max_length`` set.
        width: Dimensions of the backbone's vectors.
        projection_weights: The state dict of ``layout.projection``, if there is one.
    """
    prefix = "sentence_transformers.models."
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            **{flag: ours == layout.pooling for flag, ours in POOLING_FLAGS.items()},
            **dict.fromkeys(UNUSED_FLAGS, False),
            "include_prompt": True,
        },
    )
    if layout.projection is not None:
        kinds.append((f"{len(kinds)}_Dense", "Dense"))
        layout.projection.write(folder / kinds[-1][0], projection_weights)
    if layout.normalize:
        kinds.append((f"{len(kinds)}_Normalize", "Normalize"))
        (folder / kinds[-1][0]).mkdir(exist_ok=True)
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": prefix + kind}
        for at, (path, kind) in enumerate(kinds)
    ]
    _write(folder / "modules.json", modules)
    _write(
        folder / "sentence_bert_config.json",
        {"max_seq_length": layout.max_length, "do_lower_case": False},
    )
    prompts = {"query": "", "document": "", **layout.prompts}
    _write(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )


def _read_pooling(file: Path) -> Pooling:
    config = _read(file)
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        found = [modes] if isinstance(modes, str) else list(modes)
    else:
        found = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    pooling = {**POOLING_FLAGS, **POOLING_MODES}.get(found[0]) if len(found) == 1 else None
    included = config.get("include_prompt", True)
    if pooling is None or not included:
        raise ValueError(
            f"{file}: pooling {'+'.join(found)} with include_prompt {included} cannot be run here; "
            f"poolings are {', '.join(POOLINGS)}, prompts included"
        )
    return pooling  # type: ignore[return-value]


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
