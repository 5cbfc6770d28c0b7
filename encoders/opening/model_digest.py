"""A digest of a model: key of what is cached, and of what was chosen for it, whatever its name."""

import hashlib
import json
from typing import Any

from encoders.backbone import Encoder
from encoders.opening.bf16_weights import weights_in_bf16

# Ends of the names of settings that say where a tokenizer was found, and of those of a call.
PLACES = ("_file", "_path", "max_length", "_side")


def model_digest(model: Encoder) -> str:
    """A digest (32 hex characters) of everything in a model that determines its output for a text.

    That is its weights, byte by byte, its tokenizer and its pooling. Its name and folder do not
    count: two fine-tunes of one base differ, a copy does not. Nor do prompts and maximum length,
    which are settings of a call.
    """
    digest = hashlib.blake2b(digest_size=16)
    in_bf16 = weights_in_bf16(model)
    for name, weight in sorted(model.state_dict().items()):
        weight = weight.float() if name in in_bf16 else weight
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().numpy())
    config = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version", "sentence_transformers"):
        config.pop(name, None)
    about = {"kind": type(model).__name__, "config": config, "tokenizer": _tokenizer(model)}
    about |= model.architecture()
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _tokenizer(model: Encoder) -> Any:
    """How a text is tokenized; truncation and padding are settings of a call."""
    tokenizer, settings = model.tokenizer, {}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer implemented in Python
        given = tokenizer.init_kwargs.items()
        settings = {name: value for name, value in given if not name.endswith(PLACES)}
        return [type(tokenizer).__name__, tokenizer.get_vocab(), settings]
    rules = json.loads(backend.to_str())
    if tokenizer.split_special_tokens:
        settings["split_special_tokens"] = True
    settings["inputs"] = sorted(tokenizer.model_input_names)
    return settings | {
        name: rule for name, rule in rules.items() if name not in ("truncation", "padding")
    }
