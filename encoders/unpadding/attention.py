"""Attention within each text of a packed sequence: the fastest kernel that can."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

from encoders.unpadding.dropout import dropout_mask, scale
from encoders.unpadding.kernels import find_kernel, text_by_text
from encoders.unpadding.layout import Rule, TextLayout, position_bias
from encoders.unpadding.parts import parts

# Shapes: T tokens of a packed sequence, A attention heads, D width of a head; S tokens with the
# layout's padding, M = n * A matrices of n texts padded to l tokens each.

ATTENTION = "tandem_unpadded"
# Scores computed at once: few enough that glibc keeps the memory for the next. It returns blocks of
# more than 32 MiB to the system, and to get them again takes longer than to fill them.
SCORES_AT_ONCE = 2**22
# With longer texts torch's kernel is used where possible: it never holds all scores in memory.
LONG = 1024


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
    softcap: float | None = None,
    layout: TextLayout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each text: [1, A, T, D] to [1, T, A, D]. Called by transformers' layers.

    Args:
        module: The attention layer; ``is_causal`` says that it does not look ahead.
        query: [1, A, T, D].
        key: The same, or with fewer heads that are shared by several.
        value: As ``key``.
        attention_mask: Always None: there is no padding to mask.
        scaling: Of the scores; None: 1 / sqrt(D).
        dropout: Probability; 0 in evaluation.
        sliding_window: A token attends to those less than this far away (causal: before it).
        is_causal: Overrides the module's.
        softcap: Always None: models that cap scores (Gemma 2) run padded. A trial on a few tokens
            might not see it.
        layout: Where each text is in T.
    """
    assert layout is not None and attention_mask is None, "call the model, not its layers"
    assert softcap is None, "scores are not capped here"
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    dropout = dropout if layout.dropout is None else layout.dropout
    kind = query.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        # As for torch's own attention: rotary positions leave queries and keys in fp32.
        dtype = torch.get_autocast_dtype(kind)
        query, key, value = (states.to(dtype) for states in (query, key, value))
    q, k, v = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))  # [T, A, D]
    if torch.compiler.is_compiling():  # one operator, in which ``attend`` runs uncompiled
        operator = torch.ops.tandem.attend
        bounds = layout.bounds_on_host
        return operator(q, k, v, bounds, causal, sliding_window, dropout, scaling)[0][None], None
    rule = Rule(causal, sliding_window, dropout, scaling)
    if layout.is_single and not torch.is_grad_enabled() and not dropout:
        query, key, value = (states[:, :, : layout.longest] for states in (query, key, value))
        attended = _one_text(query, key, value, rule)
        return F.pad(attended, (0, 0, 0, 0, 0, layout.rest)), None
    return attend(q, k, v, layout, rule)[None], None


AttentionInterface.register(ATTENTION, unpadded_attention)


def attend(q: Tensor, k: Tensor, v: Tensor, layout: TextLayout, rule: Rule) -> Tensor:
    """Attend within each text: [T, A, D] to [T, A, D]; k and v may have fewer heads."""
    kind = q.device.type
    trains_here = rule.dropout or (torch.is_grad_enabled() and layout.longest <= LONG)
    if not parts.grouped_attention:
        return F.pad(text_by_text(q, k, v, layout.bounds, rule), (0, 0, 0, 0, 0, layout.rest))
    if kind == "cuda":
        return _on_gpu(q, k, v, layout, rule)
    if kind != "cpu" or not trains_here or (rule.dropout and not parts.fast_dropout):
        return _by_torch(q, k, v, layout, rule)
    # Autocast would compute the softmax, and so the second product, in fp32.
    with torch.autocast(kind, enabled=False):
        states: Tensor = _Attention.apply(q, k, v, layout, rule)  # type: ignore[no-untyped-call]
    return states


def _one_text(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """A text alone, as a server with one client has them: [1, A, T, D] to [1, T, A, D]."""
    bias = position_bias(query.shape[2], rule, query)
    shares = key.shape[1] != query.shape[1]
    states = F.scaled_dot_product_attention(
        query, key, value, bias, scale=rule.scaling, enable_gqa=shares
    )
    return states.transpose(1, 2)


def _on_gpu(q: Tensor, k: Tensor, v: Tensor, layout: TextLayout, rule: Rule) -> Tensor:
    """By one kernel for all texts, if there is one."""
    kernel = find_kernel(q, k, rule)
    if kernel is None:
        return _by_torch(q, k, v, layout, rule)
    return kernel(q, k, v, layout.bounds, layout.longest, rule)


def _by_torch(q: Tensor, k: Tensor, v: Tensor, layout: TextLayout, rule: Rule) -> Tensor:
    """``scaled_dot_product_attention``, group by group."""
    heads, width = q.shape[1:]
    states = [layout.pack(x, heads) for x in (q, k, v)]  # [S * A, D]
    attended = []
    for group in layout.groups:
        rows = group.rows(heads)
        q, k, v = (x[rows].view(group.count, heads, group.places, width) for x in states)
        bias = layout.bias(group, q, rule)
        found = F.scaled_dot_product_attention(q, k, v, bias, rule.dropout, scale=rule.scaling)
        attended.append(found.reshape(-1, width))
    return layout.unpack(torch.cat(attended), heads)


class _Attention(torch.autograd.Function):
    """Softmax attention for training on a CPU, forward and backward as batched matrix products.

    torch's CPU kernel has no dropout, and its backward is slow in bf16. Here each direction is one
    node of the autograd graph, so that every step on the scores works in place.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: TextLayout, rule: Rule
    ) -> Tensor:
        heads, dropout = query.shape[1], rule.dropout
        q, k, v = (layout.pack(states, heads) for states in (query, key, value))  # [S * A, D]
        q *= rule.scaling
        attended = torch.empty_like(q)
        saved = []
        for group, rows in layout.tiles(heads, SCORES_AT_ONCE):
            left, right, values, out = (
                _matrices(x, rows, group.places) for x in (q, k, v, attended)
            )
            weights = torch.bmm(left, right.transpose(1, 2))  # [M, l, l]
            layout.mask(weights, group, rows, heads, rule)
            torch.softmax(weights, -1, out=weights)
            if dropout:
                # One tensor for backward: the sign says which weights were dropped.
                weights.addcmul_(weights, dropout_mask(weights, dropout), value=-2)
            torch.bmm(weights.clamp_min(0) if dropout else weights, values, out=out)
            saved.append(weights)
        ctx.sizes = layout, rule, heads, key.shape[1]
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(q, k, v, attended, *saved)
        return layout.unpack(attended, heads).mul_(scale(dropout))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        # With softmax P, what dropout keeps K (0 or 1) and c = scale(dropout): O = c (P K) V. The
        # gradient of the scores is P K (c dO V') - P d, where d is c dO O summed over the width.
        layout, rule, heads, shared = ctx.sizes
        dropout = rule.dropout
        q, k, v, attended, *saved = ctx.saved_tensors
        given = layout.pack(gradient, heads, zeros=True).mul_(scale(dropout))
        sums = (given * attended).sum(-1, keepdim=True)  # [S * A, 1]
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        tiles = layout.tiles(heads, SCORES_AT_ONCE)
        for (group, rows), weights in zip(tiles, saved, strict=True):
            used, weights = (weights.clamp_min(0), weights.abs()) if dropout else (weights, weights)
            own, left, right, values, total, for_q, for_k, for_v = (
                _matrices(x, rows, group.places) for x in (given, q, k, v, sums, dq, dk, dv)
            )
            torch.bmm(used.transpose(1, 2), own, out=for_v)
            scores = torch.bmm(own, values.transpose(1, 2)).mul_(used)
            scores.addcmul_(weights, total, value=-1)
            torch.bmm(scores, right, out=for_q)
            torch.bmm(scores.transpose(1, 2), left, out=for_k)
        dq *= rule.scaling
        d_query, d_key, d_value = (layout.unpack(x, heads) for x in (dq, dk, dv))
        if shared != heads:
            d_key, d_value = (x.unflatten(1, (shared, -1)).sum(2) for x in (d_key, d_value))
        return d_query, d_key, d_value, None, None


def _matrices(states: Tensor, rows: slice, places: int) -> Tensor:
    """Rows of [S * A, D] as matrices [M, l, D]."""
    return states[rows].view(-1, places, states.shape[-1])
