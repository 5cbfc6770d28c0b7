"""What a model is known by in a cache: a digest of its content, whatever its name."""

import hashlib
import json
from typing import Any

from encoders.backbone import Encoder


def model_digest(model: Encoder) -> str:
    """A digest of all in a model that decides what it makes of a text: 32 characters.

    That is its weights, byte by byte, its tokenizer, and how it pools. Its name and folder are no
    part of it: two fine-tunes of one base differ, a copy does not. Prompts and maximum length are
    settings of the call.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    digest.update(json.dumps(_architecture(model), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _architecture(model: Encoder) -> dict[str, Any]:
    config = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version", "sentence_transformers"):
        config.pop(name, None)
    about = {"kind": type(model).__name__, "config": config, "tokenizer": _tokenizer(model)}
    return about | model.architecture()


def _tokenizer(model: Encoder) -> Any:
    """What the tokenizer makes of a text; where it cuts and pads is a setting of the call."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None:  # one that is written in Python
        return [type(model.tokenizer).__name__, model.tokenizer.get_vocab()]
    rules = json.loads(backend.to_str())
    return {name: rule for name, rule in rules.items() if name not in ("truncation", "padding")}
