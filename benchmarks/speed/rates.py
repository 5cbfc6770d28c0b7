"""FLOPs of a forward over given texts, and the machine's rate in a large matrix product."""

import argparse
import time
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from benchmarks.speed.results import device
from encoders.opening.model_name import resolve_model


def lengths(args: argparse.Namespace, rows: list[dict[str, Any]]) -> list[int]:
    """Real tokens of every text (or pair) that the task's model is given."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(args.model))
    queries, documents = ([row[side] for row in rows] for side in ("query", "doc"))
    cut = {"truncation": True, "max_length": args.max_length}
    if args.task in ("reranker", "score"):
        return [len(ids) for ids in tokenizer(queries, documents, **cut)["input_ids"]]
    texts = documents if args.task == "encode" else queries + documents
    return [len(ids) for ids in tokenizer(texts, **cut)["input_ids"]]


def forward_flops(args: argparse.Namespace, rows_lengths: list[int]) -> float:
    """FLOPs of one forward over texts of these lengths: linear layers and attention products."""
    config = AutoConfig.from_pretrained(resolve_model(args.model))
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    )
    attention = 4 * config.hidden_size * config.num_hidden_layers
    return float(sum(2 * linear * n + attention * n * n for n in rows_lengths))


def matmul_rate(dtype: torch.dtype, size: int | None = None) -> float:
    """FLOP/s of a large matrix product here: the best of several."""
    size = size or (8192 if torch.cuda.is_available() else 2048)
    a, b = (torch.randn(size, size, device=device()).to(dtype) for _ in range(2))
    taken = []
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return 2 * size**3 / min(taken)
