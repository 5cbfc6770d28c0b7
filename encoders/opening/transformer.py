"""Open a backbone and its tokenizer as sentence-transformers does, and refuse unsupported ones.

Its ``Transformer`` module reads the folder: where truncation and lower-casing are configured, and
which half of an encoder-decoder is the encoder. The result is checked here, so that no model trains
or answers wrongly in silence.
"""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from sentence_transformers.base.modules import Transformer
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.xmod.modeling_xmod import XmodAdapter

from common.json_files import read_json
from encoders.export import OnnxBackbone, is_onnx
from encoders.opening.positions import position_limit, position_offset
from encoders.opening.tokens import tokens_without_embedding

logger = logging.getLogger(__name__)

BackboneTask = Literal["feature-extraction", "sequence-classification"]
OUTPUTS: dict[BackboneTask, str] = {
    "feature-extraction": "last_hidden_state",
    "sequence-classification": "logits",
}

# Tokenizers without a limit have model_max_length 1e30.
NO_LIMIT = 1e9
# Keys of processing_kwargs that concern texts, and the values that ask for what is done anyway.
TEXT = ("common", "text", "chat_template")
BY_SIDE = ("query_length", "document_length", "query_expansion")
DONE_ANYWAY: dict[str, list[Any]] = {"padding": [True], "truncation": [True, "longest_first"]}


class Opened(NamedTuple):
    """A backbone and the settings of its folder.

    Args:
        backbone: In fp32.
        tokenizer: With a padding token.
        missing: Names of weights that the folder lacks; these are random.
        max_length: The smallest of the folder's limits of a text, in tokens.
        do_lower_case: Whether texts are lower-cased before the tokenizer.
        by_side: What is stated for queries and documents apart: those of ``BY_SIDE``.
    """

    backbone: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    missing: set[str]
    max_length: int | None
    do_lower_case: bool = False
    by_side: dict[str, Any] | None = None


class _Refused(ValueError):
    """A folder asks for something unsupported; the message is complete."""


class _Reader(Transformer):
    """sentence-transformers' reader, which also keeps transformers' report of missing weights."""

    def _load_model(self, *args: Any, **kwargs: Any) -> Any:
        opened: Any = super()._load_model(*args, output_loading_info=True, **kwargs)
        model, self.report = opened
        return model


def open_backbone(
    folder: Path, task: BackboneTask, trust_remote_code: bool, takes_sides: bool = False
) -> Opened:
    """Load a model in fp32 from safetensors, and its tokenizer.

    Args:
        folder: A folder with ``config.json`` and safetensors weights, or an ONNX graph.
        task: What comes out of the model: token states, or the logit of a classifier.
        trust_remote_code: Whether Python code of the folder may run.
        takes_sides: Whether the caller applies what is stated for queries and documents apart.

    Raises:
        ValueError: It cannot be opened, or is not supported.
    """
    if is_onnx(folder):
        graph: Any = OnnxBackbone(folder, OUTPUTS[task])
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
        except Exception as error:  # third-party code on untrusted files may raise anything
            raise ValueError(_refusal(folder, error)) from error
        return Opened(graph, tokenizer, set(), _smallest_limit(folder, tokenizer, graph))
    _check_config(folder, task, trust_remote_code)
    _check_sentencepiece(folder)
    try:
        settings = _Reader._load_init_kwargs(
            str(folder),
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
        _check_settings(folder / "sentence_bert_config.json", settings, task, takes_sides)
        reader = _Reader(str(folder), **settings | {"transformer_task": task})
    except Exception as error:  # third-party code on untrusted files may raise anything
        raise ValueError(_refusal(folder, error)) from error
    tokenizer, model = reader.tokenizer, reader.model
    assert tokenizer is not None
    _check_vocabulary(folder, tokenizer, model)
    _set_padding(folder, tokenizer, model)
    _allow_autocast(model)
    _attend_in_full(model)
    # How a model is called, not what it is; some old folders have tuples, or all attention weights.
    model.config.return_dict, model.config.output_attentions = True, False
    limit = _smallest_limit(folder, tokenizer, model, reader.processing_kwargs)
    missing = set(reader.report["missing_keys"])
    by_side = {name: getattr(reader, name) for name in BY_SIDE}
    return Opened(model, tokenizer, missing, limit, reader.do_lower_case, by_side)


def check_weights(folder: Path, backbone: PreTrainedModel, missing: set[str]) -> None:
    """Refuse a backbone with missing weights.

    Raises:
        ValueError: Some are missing.
    """
    if not missing:
        return
    what = "it is not a whole model"
    if backbone.config.is_encoder_decoder:
        what = (
            f"the encoder of {backbone.config.model_type} alone is not found in the folder of the "
            "whole encoder-decoder; save the encoder by itself"
        )
    raise ValueError(
        f"{folder} lacks {len(missing)} of the backbone's weights "
        f"({', '.join(sorted(missing)[:3])}, ...); {what}"
    )


def _check_config(folder: Path, task: BackboneTask, trust_remote_code: bool) -> None:
    """Refuse, by ``config.json``, models that would open as something else."""
    if not (folder / "config.json").is_file():
        found = "no config.json"
        if (folder / "adapter_config.json").is_file():
            found = (
                "a LoRA adapter (adapter_config.json) without its base model; merge the two "
                "(peft's merge_and_unload) and save the result"
            )
        raise ValueError(f"{folder} holds {found}")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # third-party code on untrusted files may raise anything
        raise ValueError(_refusal(folder, error)) from error
    names = [str(name) for name in config.architectures or []]
    late = [name for name in names if "colbert" in name.lower() or name.endswith("ForRetrieval")]
    if late:
        raise ValueError(
            f"{folder / 'config.json'}: {late[0]} is a late-interaction model (one vector for each "
            "token) in a form that is not read here; open it once with sentence-transformers' "
            "MultiVectorEncoder and save it again: that is a model of kind multi_vector"
        )
    classifier = any(name.endswith("ForSequenceClassification") for name in names)
    if task == "sequence-classification" and classifier and config.num_labels != 1:
        labels = ", ".join(map(str, (config.id2label or {}).values()))
        raise ValueError(
            f"{folder / 'config.json'}: a classifier with {config.num_labels} labels ({labels}) "
            "is not a reranker, which gives one score per pair; give a reranker with one label "
            "(num_labels 1), or the backbone from which this model was made, to train one"
        )


def _check_settings(file: Path, settings: dict[str, Any], task: BackboneTask, sides: bool) -> None:
    """Refuse settings of sentence-transformers' Transformer that are not supported here."""
    given = settings.get("transformer_task", "feature-extraction")
    if given not in list(OUTPUTS):
        raise _Refused(
            f"{file}: transformer_task {given} is neither an embedder's nor a reranker's; of a "
            "decoder that answers yes or no, scripts/convert_reranker.py makes a reranker"
        )
    text = settings["modality_config"].get("text", {})
    if (text.get("method"), text.get("method_output_name")) != ("forward", OUTPUTS[given]):
        raise _Refused(
            f"{file}: modality_config gives {text or 'no method'} for text; only forward with the "
            f"output {OUTPUTS[given]} can be run here"
        )
    for name in BY_SIDE:
        if settings.get(name) is not None and not sides:
            raise _Refused(
                f"{file}: {name} {settings[name]} is for late interaction and not applied here; "
                "take it out, and set query_max_length or document_max_length"
            )
    for modality, kwargs in (settings.get("processing_kwargs") or {}).items():
        for name, value in (kwargs or {}).items():
            if modality in TEXT and name != "max_length" and value not in DONE_ANYWAY.get(name, []):
                raise _Refused(
                    f"{file}: processing_kwargs {modality}.{name} = {value!r} is not applied here; "
                    "take it out if the model can do without"
                )


def _smallest_limit(
    folder: Path, tokenizer: PreTrainedTokenizerBase, backbone: Any, processing: Any = None
) -> int | None:
    """The smallest of the folder's limits of a text, in tokens."""
    stated = [tokenizer.model_max_length, position_limit(backbone)]
    # Read from the file: sentence-transformers has overwritten it with max_seq_length.
    for name, key in (
        ("tokenizer_config.json", "model_max_length"),
        ("sentence_bert_config.json", "max_seq_length"),
    ):
        stated.append(read_json(folder / name).get(key))
    for modality in ("common", "text"):
        stated.append((((processing or {}).get(modality)) or {}).get("max_length"))
    numbers = [limit for limit in stated if isinstance(limit, int | float)]
    limits = [int(limit) for limit in numbers if 1 <= limit < NO_LIMIT]
    return min(limits, default=None)


def _refusal(folder: Path, error: Exception) -> str:
    """Why a folder cannot be opened, in one line."""
    reason = " ".join(str(error).split())
    if isinstance(error, _Refused):
        return reason
    if "Unrecognized processing class" in reason:
        return f"{folder} has no tokenizer; copy the tokenizer's files of its base model there"
    return f"{folder} cannot be opened: {reason}"


def _check_sentencepiece(folder: Path) -> None:
    """Name the missing package; transformers would only say that there is no tokenizer."""
    stored = next(folder.glob("*.model"), None)
    if stored and not (folder / "tokenizer.json").is_file() and not find_spec("sentencepiece"):
        raise ValueError(
            f"{stored} is a SentencePiece model without a tokenizer.json, "
            "which takes the package sentencepiece; pip install -c constraints.txt -e "
            "'.[sentencepiece]'"
        )


def _check_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError(
            f"{folder} has no tokenizer (no vocabulary in it); copy the "
            "tokenizer's files of its base model there"
        )
    unknown = tokens_without_embedding(tokenizer, model)
    if unknown:
        names = ", ".join(tokenizer.convert_ids_to_tokens(unknown[:3]))
        logger.warning(
            "%s: %d tokens of the tokenizer have no row in the model's embeddings (%s): a text "
            "with one of them is refused; resize_token_embeddings(%d) would add rows",
            folder, len(unknown), names, unknown[-1] + 1,
        )  # fmt: skip


def _allow_autocast(model: PreTrainedModel) -> None:
    """XMOD writes what its adapters give into a tensor of their input's type."""
    for module in model.modules():
        if isinstance(module, XmodAdapter):
            module.register_forward_hook(lambda _, given, found: found.to(given[0].dtype))


def _attend_in_full(model: PreTrainedModel) -> None:
    """BigBird gives sparse attention up at its first short batch: it does without from the start.

    Otherwise what it gives for a text would depend on the texts before it.
    """
    backbone: Any = model.base_model
    if getattr(backbone, "attention_type", None) == "block_sparse":
        backbone.set_attention_type("original_full")
        logger.warning(
            "%s attends in full, also in long texts, as transformers has it do from the first "
            "batch of short texts on",
            model.config.model_type,
        )


def _set_padding(folder: Path, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Pad with the tokenizer's padding token, or else its end token, and tell the model.

    A decoder's scoring head finds a text's last token by ``config.pad_token_id``. In RoBERTa and
    similar models that id also determines the first position, so it is kept there. Bidirectional
    encoders pad on the right, also in the saved folder: on the left, padding would shift positions
    and take the place of the first token.
    """
    if "attention_mask" not in tokenizer.model_input_names:  # padding would be read as text
        tokenizer.model_input_names = [*tokenizer.model_input_names, "attention_mask"]
    if not any(getattr(module, "is_causal", False) for module in model.modules()):
        tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(
                f"{folder}: the tokenizer has neither a padding token nor an "
                "end token to pad with; name one as pad_token in tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    if not position_offset(model):
        for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
            config.pad_token_id = tokenizer.pad_token_id
