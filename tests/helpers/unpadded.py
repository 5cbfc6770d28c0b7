"""Small random models of every backbone that can be unpadded, and padded batches for them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

COMMON: dict[str, Any] = {"vocab_size": 90, "pad_token_id": 1, "num_labels": 1}
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SMALL: dict[str, Any] = {**COMMON, **SIZES, "intermediate_size": 48, "max_position_embeddings": 64}
DECODER: dict[str, Any] = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "use_cache": True}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "bert": lambda: BertConfig(**SMALL, **NO_DROPOUT),
    "roberta": lambda: RobertaConfig(**SMALL),
    "xlm-roberta": lambda: XLMRobertaConfig(**SMALL),
    "electra": lambda: ElectraConfig(**SMALL, embedding_size=16),
    "distilbert": lambda: DistilBertConfig(**COMMON, dim=32, n_layers=2, n_heads=4, hidden_dim=48),
    "modernbert": lambda: ModernBertConfig(
        **SMALL,
        local_attention=8,
        layer_types=["full_attention", "sliding_attention"],
        cls_token_id=2,
        sep_token_id=3,
    ),
    "qwen3": lambda: Qwen3Config(**DECODER),
    "qwen3 sliding": lambda: Qwen3Config(
        **DECODER, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "llama": lambda: LlamaConfig(**DECODER),
}


def make(name: str, auto: Any, seed: int = 0) -> PreTrainedModel:
    config = CONFIGS[name]()
    torch.manual_seed(seed)
    model: PreTrainedModel = auto.from_config(config).double().eval()
    with torch.no_grad():  # Small random weights hide errors.
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def batch(lengths: list[int], left: bool = False) -> dict[str, Tensor]:
    width = max(lengths)
    generator = torch.Generator().manual_seed(sum(lengths))
    ids = torch.randint(5, 90, (len(lengths), width), generator=generator)
    mask = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
    mask = mask.flip(1) if left else mask
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}
