"""Attention within each of many texts that stand in one row without padding."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

# Shapes: T tokens of all texts, A attention heads, D width of a head; n texts of one length l.

ATTENTION = "tandem_unpadded"


def unpadded_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    text_groups: list[tuple[int, int]] | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each text: [1, A, T, D] to [1, T, A, D]. Called by transformers' layers.

    Args:
        module: The attention layer; ``is_causal`` says that it does not look ahead.
        query: [1, A, T, D].
        key: The same, or with fewer heads that are shared by several.
        value: As ``key``.
        attention_mask: None: there is no padding to mask.
        scaling: Of the scores; None: 1 / sqrt(D).
        dropout: Probability; 0 in evaluation.
        sliding_window: A token sees those less than so many places away (if causal: before it).
        is_causal: Overrules the module's.
        text_groups: (length l, number of texts n) in the order in which they stand in T.
    """
    assert text_groups is not None and attention_mask is None, "call the model, not its layers"
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    tokens = [length * count for length, count in text_groups]
    parts = [states[0].transpose(0, 1).split(tokens) for states in (query, key, value)]
    attended = []
    for (length, count), *group in zip(text_groups, *parts, strict=True):
        q, k, v = (part.unflatten(0, (count, length)).transpose(1, 2) for part in group)
        seen = _seen(length, sliding_window, causal, query.device)
        states = _attend(q, k, v, seen, dropout, scale)  # [n, A, l, D]
        attended.append(states.transpose(1, 2).flatten(0, 1))
    return torch.cat(attended)[None], None


AttentionInterface.register(ATTENTION, unpadded_attention)


def _seen(length: int, window: int | None, causal: bool, device: torch.device) -> Tensor | None:
    """Which tokens of a text a token sees, bool [l, l]; None: all."""
    reach = length if window is None else min(window, length)
    if length == 1 or not (causal or reach < length):
        return None
    at = torch.arange(length, device=device)
    distance = at[:, None] - at[None, :]
    near = distance.abs() < reach
    return near & (distance >= 0) if causal else near


def _attend(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, dropout: float, scale: float
) -> Tensor:
    """Softmax attention of n texts of one length."""
    shared = q.shape[1] != k.shape[1]
    if q.device.type != "cpu" or (dropout == 0 and q.dtype != torch.bfloat16):
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, dropout_p=dropout, scale=scale, enable_gqa=shared
        )
    # torch's own CPU kernel has a backward that is slow in bf16, and no dropout. Autocast would
    # turn the softmax, and with it the second product, into fp32.
    if shared:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    with torch.autocast("cpu", enabled=False):
        scores = torch.matmul(q * scale, k.transpose(-1, -2))  # [n, A, l, l]
        if seen is not None:
            scores = scores.masked_fill(~seen, float("-inf"))
        weights = scores.softmax(dim=-1)
        if dropout:
            weights = weights * _keep(weights, dropout)
        return torch.matmul(weights, v)


def _keep(weights: Tensor, dropout: float) -> Tensor:
    """Dropout's factors, 0 or 1 / (1 - p), from 16 random bits each.

    Several times faster on a CPU than ``bernoulli_``, which draws its numbers one by one. The
    probability is met to 1 / 65,536.
    """
    words = torch.empty(-(-weights.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: weights.numel()].view(weights.shape)
    kept = bits >= round(dropout * 2**16) - 2**15
    return kept.to(weights.dtype).mul_(1 / (1 - dropout))
