"""The reranker (cross-encoder): one score for a query and a document read together."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from sentence_transformers.util import fullname, import_from_string
from torch import Tensor, nn

from common.json_files import read_entries, read_settings, write_json
from common.prompts import check_pairs
from common.run_files import make_weights_readable
from encoders.backbone import Encoder
from encoders.inference import ScoreSettings, inference_settings
from encoders.modules.files import OTHER_MODELS
from encoders.opening.model_name import resolve_model
from encoders.opening.transformer import check_weights, open_backbone
from encoders.unpadding import HostMask

logger = logging.getLogger(__name__)

# Shapes: P pairs of query and document, L tokens of the longest pair.

# Where sentence-transformers describes a CrossEncoder, from release 6 on.
SETTINGS = "config_sentence_transformers.json"
CROSS_ENCODER = "CrossEncoder"
TRANSFORMER = {
    "idx": 0,
    "name": "0",
    "path": "",
    "type": "sentence_transformers.base.modules.transformer.Transformer",
}


class Reranker(Encoder):
    """A sequence classifier with one label over query and document, joined by the tokenizer.

    Open one with ``Reranker.from_pretrained``. Its folder is a plain transformers folder, with
    the activation named in ``config.json`` where sentence-transformers' ``CrossEncoder`` looks.

    Args:
        activation: Turns logits into scores; None: sigmoid, the default of ``CrossEncoder``.
        settings: The ``config_sentence_transformers.json`` of folders saved by release 6, which is
            written again; None for other folders.
    """

    kind = "reranker"
    backbone_task = "sequence-classification"

    def __init__(
        self,
        *args: Any,
        activation: nn.Module | None = None,
        settings: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.activation = activation or nn.Sigmoid()
        self.settings = settings

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        max_length: int | None = None,
        prompts: dict[str, str] | None = None,
        unpad_inputs: bool = True,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> Self:
        """Open a sequence classifier with one label, or a backbone, which gets a new head.

        Arguments as in ``Embedder.from_pretrained``; ``max_length`` is of a pair.

        Raises:
            ValueError: No such model, no weights, or a classifier of several labels.
        """
        folder = resolve_model(str(name_or_path), revision)
        opened = open_backbone(_backbone(folder), cls.backbone_task, trust_remote_code)
        backbone: Any = opened.backbone
        body = {  # an ONNX graph lacks nothing, and has no prefix
            name
            for name in opened.missing
            if name.startswith(f"{backbone.base_model_prefix}.") and ".pooler." not in name
        }
        check_weights(folder, backbone, body)
        if opened.missing:
            logger.info("%s has no scoring head: it starts from random weights", name_or_path)
        activation, own_prompts, settings = _settings(folder, backbone.config)
        model = cls(
            backbone,
            opened.tokenizer,
            max_length=max_length or opened.max_length,
            unpad_inputs=unpad_inputs,
            trust_remote_code=trust_remote_code,
            prompts=own_prompts if prompts is None else prompts,
            activation=_activation(folder, activation, trust_remote_code),
            settings=settings,
        )
        model.new_weights = {f"backbone.{name}" for name in opened.missing}
        return model

    def forward(self, host_mask: HostMask | None = None, **inputs: Tensor) -> Tensor:
        """Tokens of pairs [P, L] to scores [P] (raw logits).

        ``host_mask`` is ``attention_mask`` on the host.
        """
        self.check_tokens(inputs["input_ids"])
        scores: Tensor = self.run_backbone(host_mask, **inputs).logits.squeeze(-1)
        return scores

    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        raw: bool = False,
        **settings: Unpack[ScoreSettings],
    ) -> Tensor:
        """Score (query, document) pairs: float32 [len(pairs)] on the CPU, in the order given.

        Args:
            pairs: Any number of pairs, none included.
            raw: Logits, without the model's activation: as a rule the sigmoid, which lies between 0
                and 1, but a folder may name another.
            settings: ``prompts``, ``max_length``, ``tokens_per_batch``, ``bf16`` and others; see
                ``ScoreSettings``. The longer text of a pair is cut first.
        """
        for pair in pairs:
            if isinstance(pair, str):
                raise ValueError(f"pairs: {pair[:40]!r} is one text; give (query, document) pairs")
        queries, documents = [query for query, _ in pairs], [document for _, document in pairs]
        scores = self.score_pairs(queries, documents, **settings)
        return scores if raw else self.activation(scores)

    def score_pairs(
        self, queries: Sequence[str], documents: Sequence[str], **settings: Unpack[ScoreSettings]
    ) -> Tensor:
        """The logit of each pair; see ``Encoder.score_pairs``."""
        check_pairs(queries, documents)
        return self.forward_in_batches(
            *self.add_prompts(queries, documents, settings),
            truncation="longest_first",
            **inference_settings(settings, settings.get("max_length")),
        )

    def save_pretrained(
        self, folder: str | Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Write a folder that ``CrossEncoder`` and ``AutoModelForSequenceClassification`` load."""
        folder = Path(folder)
        about: dict[str, Any] = {"activation_fn": fullname(self.activation)}
        if prompts := {side: prompt for side, prompt in self.prompts.items() if prompt}:
            about["prompts"] = prompts
        self.backbone.config.sentence_transformers = about
        state = self.state_dict() if state_dict is None else state_dict
        self.save_backbone(folder, state)
        make_weights_readable(folder)
        if self.settings is not None:
            settings = self.settings | {"activation_fn": about["activation_fn"]}
            if default := settings.get("default_prompt_name"):
                given = {default: self.prompts.get("query", "")}
                settings["prompts"] = (settings.get("prompts") or {}) | given
            write_json(folder / SETTINGS, settings)
            write_json(folder / "modules.json", [TRANSFORMER])
            limit = {"transformer_task": "sequence-classification"}
            write_json(folder / "sentence_bert_config.json", limit)


def _backbone(folder: Path) -> Path:
    """The folder of the classifier itself; in release 6 that of the CrossEncoder's one module."""
    file = folder / "modules.json"
    if not file.is_file():
        return folder
    entries = read_entries(file)
    kind = read_settings(folder / SETTINGS).get("model_type") or "SentenceTransformer"
    names = [entry["type"].rpartition(".")[2] for entry in entries]
    if names[:1] != ["Transformer"] or (kind == CROSS_ENCODER and len(names) > 1):
        raise ValueError(
            f"{file}: a reranker of the modules {', '.join(names)} cannot be trained or run here, "
            "unlike a sequence classifier (one module, Transformer)"
            + (", which scripts/convert_reranker.py makes of a decoder" * ("LogitScore" in names))
        )
    if kind not in (CROSS_ENCODER, "SentenceTransformer"):
        what = OTHER_MODELS.get(kind, "of another kind")
        raise ValueError(f"{folder / SETTINGS}: model_type {kind} is {what}, not a reranker")
    return folder / str(entries[0]["path"])


def _settings(
    folder: Path, config: Any
) -> tuple[str | None, dict[str, str], dict[str, Any] | None]:
    """Activation, prompts and settings, from where releases 3 to 6 and Tandem write them."""
    own = getattr(config, "sentence_transformers", None) or {}
    old = getattr(config, "sbert_ce_default_activation_function", None)
    activation = own.get("activation_fn", old)
    prompts = {side: text for side, text in (own.get("prompts") or {}).items() if text}
    settings = read_settings(folder / SETTINGS)
    if settings.get("model_type") != CROSS_ENCODER:
        return activation, prompts, None
    # CrossEncoder puts it in front of the pair, and so of the query.
    default = (settings.get("prompts") or {}).get(settings.get("default_prompt_name") or "")
    prompts = prompts or ({"query": default} if default else {})
    return settings.get("activation_fn") or activation, prompts, settings


def _activation(folder: Path, name: str | None, trust_remote_code: bool) -> nn.Module | None:
    """The activation named in a folder."""
    if name is None:
        return None
    if not (trust_remote_code or str(name).startswith("torch.nn.")):
        raise ValueError(
            f"{folder}: activation_fn {name} is not one of torch.nn, and its code is not run; if "
            "you trust it, give trust_remote_code"
        )
    try:
        activation: nn.Module = import_from_string(name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder}: activation_fn {name} cannot be used: {error}") from None
    return activation
