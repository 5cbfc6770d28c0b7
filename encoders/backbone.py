"""Open a transformers model and its tokenizer, refusing what would train or answer wrongly."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from encoders import unpadding
from encoders.dropout import speed_up_dropout
from encoders.lora import FOLDER, Lora, add_lora
from encoders.onnx_backbone import OnnxBackbone, is_onnx
from encoders.rows import cut_by_tokens
from encoders.sharding import layer_classes, shared_out
from encoders.unpadding import Row, or_first

# RoBERTa and its kin number positions from the padding token's id + 1.
OFFSET_POSITIONS = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "ibert"}

# What comes out of a model, by the class that opens it.
OUTPUTS = {"AutoModel": "last_hidden_state", "AutoModelForSequenceClassification": "logits"}

TOKENS_PER_BATCH = 2**15
TEXTS_TOKENIZED_AT_ONCE = 2**14


class Encoder(nn.Module):
    """What embedder and reranker share: a transformers model, its tokenizer and a text limit.

    Args:
        backbone: The transformers model.
        tokenizer: Its tokenizer; its ``model_max_length`` is set to ``max_length``.
        max_length: Tokens after which a text (or pair) is cut; None: as many as the model takes.
        unpad_inputs: Compute on real tokens only, where the backbone can (see ``unpadding``).
        prompts: Text put before "query" and "document" texts.
    """

    backbone: PreTrainedModel

    def __init__(
        self,
        backbone: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        unpad_inputs: bool = True,
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        limit = token_limit(backbone, tokenizer)
        if max_length is not None and limit is not None and max_length > limit:
            raise ValueError(
                f"max_length: {max_length} tokens are asked for, but {backbone.config.model_type} "
                f"takes at most {limit}; give {limit} or less"
            )
        speed_up_dropout(backbone)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.max_length: int = max_length or limit or 512
        tokenizer.model_max_length = self.max_length
        computed_here = not isinstance(backbone, OnnxBackbone)
        self.unpadded = unpad_inputs and computed_here and unpadding.unpad_inputs(backbone)
        self.lora: Lora | None = None
        self.prompts = dict(prompts or {})

    def replace_prompts(self, query: str | None, document: str | None) -> None:
        """Take these prompts in place of the model's own; None keeps it, "" takes it away."""
        given = {"query": query, "document": document}
        self.prompts |= {side: prompt for side, prompt in given.items() if prompt is not None}

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path) -> Self:
        """Open a folder or a name on the Hub."""
        raise AssertionError("each kind of model says how it is opened")

    def add_lora(self, base: str, **settings: Any) -> None:
        """Freeze the backbone and train adapters; arguments as in ``encoders.lora.add_lora``."""
        self.lora = add_lora(self.backbone, base, **settings)
        speed_up_dropout(self.backbone)

    def save_backbone(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write backbone and tokenizer; with adapters merged, and beside it the adapter."""
        if self.lora is not None:
            self.lora.save(folder / FOLDER, weights)
            weights = self.lora.merged(weights)
        self.backbone.save_pretrained(folder, state_dict=weights)
        save_tokenizer(self.tokenizer, folder)

    def load_weights(self, folder: str | Path) -> None:
        """Take over the weights of a folder that ``save_pretrained`` wrote for this model.

        Raises:
            ValueError: It is no folder of such a model.
        """
        weights = type(self).from_pretrained(folder).state_dict()
        own = self.state_dict()
        if self.lora is not None:
            backbone = {
                name.removeprefix("backbone."): weight
                for name, weight in own.items()
                if name.startswith("backbone.")
            }
            loaded = self.lora.load(Path(folder) / FOLDER, backbone)
            rest = {k: v for k, v in weights.items() if not k.startswith("backbone.")}
            weights = own | rest | {f"backbone.{name}": w for name, w in loaded.items()}
        self.load_state_dict(shared_out(weights, own))

    def rows(self, attention_mask: Tensor, **inputs: Tensor) -> list[Row]:
        """The backbone's states of all real tokens, text after text."""
        if self.unpadded:
            return list(self.backbone(attention_mask=attention_mask, **inputs, lay_back=False))
        real = or_first(attention_mask)
        states = self.backbone(attention_mask=real, **inputs).last_hidden_state
        texts = list(range(len(real)))
        return [Row(states[real.bool()], texts, real.sum(dim=1))]

    @torch.inference_mode()
    def run_all(
        self,
        *texts: Sequence[str],
        max_length: int | None,
        tokens_per_batch: int | None,
        bf16: bool,
        show_progress: bool,
        truncation: str | bool = True,
    ) -> Tensor:
        """``forward`` on any number of texts (or first and second texts), in the order given.

        Returns:
            float32 on the CPU, [N, ...] as ``forward`` gives it; [0] of no texts.
        """
        self.eval()
        budget = tokens_per_batch or TOKENS_PER_BATCH
        cut = {"truncation": truncation, "max_length": max_length or self.max_length}
        precision = torch.autocast(
            self.device.type, torch.bfloat16, enabled=bf16 and bf16_is_fast(self.device)
        )
        results = []
        with (
            precision,
            tqdm(total=len(texts[0]), disable=not show_progress, unit="text", leave=False) as bar,
        ):
            for start in range(0, len(texts[0]), TEXTS_TOKENIZED_AT_ONCE):
                block = (side[start : start + TEXTS_TOKENIZED_AT_ONCE] for side in texts)
                tokens = self.tokenizer(*(list(side) for side in block), **cut)
                pieces = cut_by_tokens([len(ids) for ids in tokens["input_ids"]], budget)
                found = []
                for piece in pieces:
                    chosen = {name: [tokens[name][at] for at in piece] for name in tokens}
                    batch = self.tokenizer.pad(chosen, return_tensors="pt").to(self.device)
                    found.append(self(**batch).float().cpu())
                    bar.update(len(piece))
                order = torch.tensor([at for piece in pieces for at in piece])
                results.append(torch.cat(found)[order.argsort()])
        return torch.cat(results) if results else torch.zeros(0)

    @property
    def config(self) -> Any:
        """The transformers configuration (``Trainer`` and its loggers read it)."""
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU, if ONNX Runtime has them."""
        return next(self.parameters(), torch.empty(0)).device

    @property
    def _no_split_modules(self) -> list[str]:
        """What accelerate shards one by one (FSDP), unless its configuration names classes."""
        return layer_classes(self.backbone)

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Called by ``Trainer`` for ``activation_checkpointing: true`` (gradient checkpointing)."""
        self.backbone.activation_checkpointing_enable(**kwargs)


def open_backbone(
    auto_class: Any, folder: Path, trust_remote_code: bool, **kwargs: Any
) -> tuple[PreTrainedModel, set[str]]:
    """Load a model in fp32 from safetensors, with the names of weights the folder lacked.

    Args:
        auto_class: ``AutoModel`` or ``AutoModelForSequenceClassification``.
        folder: A folder with ``config.json`` and safetensors weights.
        trust_remote_code: Whether Python code of the folder may run.
        kwargs: Handed on to ``from_pretrained``.
    """
    if is_onnx(folder):
        graph: Any = OnnxBackbone(folder, OUTPUTS[auto_class.__name__])
        return graph, set()
    try:
        model, report = auto_class.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **kwargs,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"model_name_or_path: {folder} cannot be opened: {reason}") from error
    return model, set(report["missing_keys"])


def open_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer of ``folder``; one without padding pads with its end-of-text token."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"model_name_or_path: {folder} has no tokenizer: {reason}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError(
            f"model_name_or_path: {folder} has no tokenizer (no vocabulary in it); copy the "
            "tokenizer's files of its base model there"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # A collator pads separately tokenized texts together, which is what this hint is about.
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer that transformers 4 opens too, where it has no class of its own."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    if about.get("tokenizer_class") == "TokenizersBackend":  # its name from transformers 5 on
        about["tokenizer_class"] = "PreTrainedTokenizerFast"
        text = json.dumps(about, ensure_ascii=False, indent=2)
        file.write_text(text + "\n", encoding="utf-8")


def token_limit(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Tokens that the model can take: by its positions, or else by its tokenizer."""
    config = backbone.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in OFFSET_POSITIONS:
        positions -= (config.pad_token_id or 0) + 1
    if positions and positions > 0:
        return int(positions)
    # Tokenizers without a limit of their own say 1e30.
    return tokenizer.model_max_length if tokenizer.model_max_length < 1e9 else None


def bf16_is_fast(device: torch.device) -> bool:
    """Whether ``device`` multiplies in bf16 itself; a CPU that only emulates it is far slower.

    On CPUs it takes AVX512-BF16 or AMX (Intel from Cooper Lake and Sapphire Rapids on, AMD from
    Zen 4 on).
    """
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
