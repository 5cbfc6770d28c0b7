"""Build an instruction template or an end token into a tokenizer, and save it.

Both become part of its post-processor: they survive the truncation of long texts, are saved with
the model, and apply in every program that opens the folder.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from common.json_files import read_json, write_json

QUERY, DOCUMENT = "{query}", "{document}"


def set_pair_template(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerFast:
    """A copy of ``tokenizer`` that formats a pair as in ``template``.

    The fixed text is tokenized once, each stretch by itself. A space in front of both placeholders
    is given to the texts, since tokenizers of decoders merge it with the word that follows.

    Args:
        tokenizer: Of a decoder; its own special tokens around texts are replaced.
        template: Text with ``{query}`` and, after it, ``{document}``.

    Raises:
        ValueError: The template lacks one of the two, or has a space before only one of them.
    """
    before, found, rest = template.partition(QUERY)
    between, also_found, after = rest.partition(DOCUMENT)
    if not found or not also_found or QUERY in rest or DOCUMENT in after:
        raise ValueError(
            f"pair_template: must have {QUERY} once and {DOCUMENT} once behind it, got {template!r}"
        )
    spaced = before.endswith(" ")
    if spaced != between.endswith(" "):
        raise ValueError(
            f"pair_template: give a space before both {QUERY} and {DOCUMENT}, or before none"
        )
    stretches = {"<before>": before, "<between>": between, "<after>": after}
    ids = {
        name: tokenizer(text.removesuffix(" ") if spaced else text, add_special_tokens=False)
        for name, text in stretches.items()
    }
    used = {name: tokens["input_ids"] for name, tokens in ids.items() if tokens["input_ids"]}
    places = ("<before>", "$A", "<between>", "$B:1", "<after>:1")
    copy = _generic(tokenizer, tokenizer.backend_tokenizer.to_str())
    copy.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A",
        pair=[place for place in places if place[0] == "$" or place.split(":")[0] in used],
        special_tokens=[
            {"id": name, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
            for name, ids in used.items()
        ],
    )
    if spaced:
        own = copy.backend_tokenizer.normalizer
        chain = [normalizers.Prepend(" ")] if own is None else [own, normalizers.Prepend(" ")]
        copy.backend_tokenizer.normalizer = normalizers.Sequence(chain)
    return copy


def end_with_eos(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer that appends its end token to each text; the same one if it does so already.

    Raises:
        ValueError: It has no end token.
    """
    eos, number = tokenizer.eos_token, tokenizer.eos_token_id
    if eos is None:
        raise ValueError(
            "append_eos_token: the model's tokenizer has no end token (eos_token); leave it out"
        )
    if tokenizer("a")["input_ids"][-1] == number:
        return tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    template = _find_template(content)
    template["special_tokens"][eos] = {"id": eos, "ids": [number], "tokens": [eos]}
    for name in ("single", "pair"):
        template[name].append({"SpecialToken": {"id": eos, "type_id": 0}})
    return _generic(tokenizer, json.dumps(content))


def _find_template(content: dict[str, Any]) -> dict[str, Any]:
    """The template processor in a tokenizer's JSON; created if there is none."""
    own = content["post_processor"]
    parts = [] if own is None else own.get("processors", [own])
    for part in parts:
        if part["type"] == "TemplateProcessing":
            template: dict[str, Any] = part
            return template
    if any(part["type"] != "ByteLevel" for part in parts):
        raise ValueError(
            f"append_eos_token: the token cannot be added to a tokenizer with {own['type']}; "
            "leave it out"
        )
    plain = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    template = json.loads(plain.__getstate__())
    content["post_processor"] = {"type": "Sequence", "processors": [*parts, template]}
    return template


def _generic(tokenizer: PreTrainedTokenizerBase, content: str) -> PreTrainedTokenizerFast:
    """The same tokenizer as a ``PreTrainedTokenizerFast``, which loads exactly as it was saved.

    Classes such as ``Qwen2Tokenizer`` rebuild their post-processor when a folder is opened.
    """
    kept: dict[str, Any] = dict(tokenizer.special_tokens_map)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(content),
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        split_special_tokens=tokenizer.split_special_tokens,
        model_input_names=tokenizer.model_input_names,
        **kept,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer so that transformers 4 opens it too, if it has no class of its own."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    about = read_json(file)
    if about.get("tokenizer_class") == "TokenizersBackend":  # its name from transformers 5 on
        about["tokenizer_class"] = "PreTrainedTokenizerFast"
        write_json(file, about)
