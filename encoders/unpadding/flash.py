"""torch's flash kernel for packed sequences with dropout: GPUs, 16 bits.

``varlen_attn`` has no dropout. The operator under it has, and a gradient; nested tensors call it
so. But it is private, so it is tried on a small batch before it is used.
"""

import logging
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.unpadding.layout import Rule, position_bias

# Shapes: T tokens of a packed sequence, A attention heads, D width of a head.

logger = logging.getLogger(__name__)

WIDTHS = 8  # the kernel takes multiples of this
LENGTHS = (3, 40, 17)  # of the trial
DROPOUT = 0.25
TOLERANCE = 0.05  # of values about 1 in bfloat16; and of a mean of some thousands with dropout


class Form(NamedTuple):
    """What the kernel may depend on."""

    device: torch.device
    dtype: torch.dtype
    heads: int
    shared: int  # of keys and values
    width: int


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, rule: Rule
) -> Tensor:
    """Attend within each text: [T, A, D] to [T, A, D]; keys and values may have fewer heads.

    Args:
        bounds: Where each text begins, and where the last one ends, int32.
        longest: Tokens of the longest text.
    """
    width = q.shape[-1]
    q, k, v = (F.pad(states, (0, -width % WIDTHS)).contiguous() for states in (q, k, v))
    reach = -1 if rule.window is None else rule.window - 1
    attended: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, bounds, bounds, longest, longest, rule.dropout, False, False,
        scale=rule.scaling, window_size_left=reach,
        window_size_right=0 if rule.causal else reach,
    )[0]  # fmt: skip
    return attended[..., :width]


def has_flash(q: Tensor, k: Tensor) -> bool:
    """Whether the kernel computes what it should for states of this form."""
    return _is_right(Form(q.device, q.dtype, q.shape[1], k.shape[1], q.shape[2]))


@cache
def _is_right(form: Form) -> bool:
    devices = [form.device] if form.device.type == "cuda" else []
    # The trial draws random numbers: those of the run stay as they are.
    with torch.random.fork_rng(devices), torch.enable_grad(), torch.inference_mode(False):
        torch.manual_seed(0)
        try:
            wrong = _difference(form)
        except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
            wrong = str(error).splitlines()[0]
    if wrong:
        logger.warning(
            "attention with dropout runs group by group: the flash kernel cannot be used (%s)",
            wrong,
        )
    return not wrong


def _difference(form: Form) -> str:
    """What is wrong, or nothing: values and gradients without dropout, and the mean with it."""
    total, rule = sum(LENGTHS), Rule(False, None, 0.0, form.width**-0.5)
    shapes = [(total, heads, form.width) for heads in (form.heads, form.shared, form.shared)]
    states = [torch.randn(shape, device=form.device) for shape in shapes]
    bounds = torch.tensor([0, *LENGTHS], device=form.device).cumsum(0).to(torch.int32)
    weight = torch.randn(shapes[0], device=form.device)
    found = []
    for dtype in (form.dtype, torch.float32):
        q, k, v = (each.to(dtype, copy=True).requires_grad_() for each in states)
        if dtype == torch.float32:
            attended = text_by_text(q, k, v, bounds, rule)
        else:
            attended = flash_attention(q, k, v, bounds, max(LENGTHS), rule)
        gradients = torch.autograd.grad((attended * weight).sum(), (q, k, v))
        found.append([attended.detach(), *gradients])
    for name, one, other in zip(("values", "q", "k", "v"), *found, strict=True):
        if not torch.allclose(one.float(), other, atol=TOLERANCE, rtol=TOLERANCE):
            return f"{name} differ by {float((one.float() - other).abs().max()):.2g}"
    query, key, _ = (each.to(form.dtype) for each in states)
    rule = rule._replace(dropout=DROPOUT)
    ones = torch.ones_like(key)
    mean = float(flash_attention(query, key, ones, bounds, max(LENGTHS), rule).mean())
    return "" if abs(mean - 1) < TOLERANCE else f"the mean with dropout is {mean:.2g} times"


def text_by_text(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, rule: Rule) -> Tensor:
    """The plain loop over the texts: [T, A, D] to [T, A, D]."""
    attended = []
    for start, stop in pairwise(bounds.tolist()):
        own, keys, values = (x[start:stop].transpose(0, 1) for x in (q, k, v))  # [A, l, D]
        keys, values = (
            x.repeat_interleave(q.shape[1] // x.shape[0], dim=0) for x in (keys, values)
        )
        bias = position_bias(stop - start, rule, own)
        found = F.scaled_dot_product_attention(
            own, keys, values, bias, rule.dropout, scale=rule.scaling
        )
        attended.append(found.transpose(0, 1))
    return torch.cat(attended)
