"""torch's kernels for packed sequences on GPUs.

``torch.nn.attention.varlen`` has no dropout, takes 16 bits only and fails on cards before Ampere.
The operators under it and under nested tensors have dropout and gradients: flash attention (16
bits, from Ampere on) and memory-efficient attention (fp32, older cards). They are private, so each
is tried on a small batch before it is used.
"""

import logging
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.unpadding.layout import Rule, position_bias

# Shapes: T tokens of a packed sequence, A attention heads, D width of a head.

logger = logging.getLogger(__name__)

# From q, k and v [T, A, D] (k and v may have fewer heads), where each text begins and the last one
# ends (int32), and the tokens of the longest text, to [T, A, D].
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, Rule], Tensor]

WIDTHS = 8  # the kernels take multiples of this
LENGTHS = (3, 40, 17)  # of the trial
DROPOUT = 0.25
# Of values about 1; and of a mean of some thousands with dropout.
TOLERANCE_FP32, TOLERANCE = 1e-3, 0.05


class Form(NamedTuple):
    """Device, type and sizes of states: a kernel is tried once for each."""

    device: torch.device
    dtype: torch.dtype
    heads: int
    shared: int  # of keys and values
    width: int


def find_kernel(q: Tensor, k: Tensor, rule: Rule) -> Kernel | None:
    """The fastest kernel that computes what it should for such states; None: there is none."""
    form = Form(q.device, q.dtype, q.shape[1], k.shape[1], q.shape[2])
    half = q.dtype in (torch.bfloat16, torch.float16)
    kernels: list[Kernel] = [flash_attention] if half else []
    if (half or q.dtype == torch.float32) and rule.window is None:
        kernels.append(efficient_attention)
    return next((kernel for kernel in kernels if _is_right(kernel, form)), None)


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, rule: Rule
) -> Tensor:
    """16 bits; causal or not, with a window or without."""
    width = q.shape[-1]
    q, k, v = (F.pad(states, (0, -width % WIDTHS)).contiguous() for states in (q, k, v))
    reach = -1 if rule.window is None else rule.window - 1
    attended: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, bounds, bounds, longest, longest, rule.dropout, False, False,
        scale=rule.scaling, window_size_left=reach,
        window_size_right=0 if rule.causal else reach,
    )[0]  # fmt: skip
    return attended[..., :width]


def efficient_attention(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, rule: Rule
) -> Tensor:
    """fp32 or 16 bits; causal or not, without a window."""
    heads, width = q.shape[1:]
    k, v = (states.repeat_interleave(heads // states.shape[1], dim=1) for states in (k, v))
    q, k, v = (F.pad(states, (0, -width % WIDTHS)).contiguous() for states in (q, k, v))
    attended: Tensor = torch.ops.aten._efficient_attention_forward(
        q[None], k[None], v[None], None, bounds, bounds, longest, longest, rule.dropout,
        int(rule.causal), torch.is_grad_enabled(), scale=rule.scaling,
    )[0]  # fmt: skip
    return attended[0, ..., :width]


@cache
def _is_right(kernel: Kernel, form: Form) -> bool:
    devices = [form.device] if form.device.type == "cuda" else []
    # The trial draws random numbers: those of the run stay as they are.
    with (
        torch.random.fork_rng(devices),
        torch.autocast(form.device.type, enabled=False),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        torch.manual_seed(0)
        try:
            wrong = _difference(kernel, form)
        except (RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
            wrong = str(error).splitlines()[0]
    if wrong:
        name = getattr(kernel, "__name__", "kernel")
        logger.warning("%s of %s cannot be used: %s", name, form.dtype, wrong)
    return not wrong


def _difference(kernel: Kernel, form: Form) -> str:
    """What is wrong, or nothing: values and gradients without dropout, and the mean with it."""
    total, rule = sum(LENGTHS), Rule(False, None, 0.0, form.width**-0.5)
    shapes = [(total, heads, form.width) for heads in (form.heads, form.shared, form.shared)]
    states = [torch.randn(shape, device=form.device) for shape in shapes]
    bounds = torch.tensor([0, *LENGTHS], device=form.device).cumsum(0).to(torch.int32)
    weight = torch.randn(shapes[0], device=form.device)
    tolerance = TOLERANCE_FP32 if form.dtype == torch.float32 else TOLERANCE
    for causal in (False, True):
        rule = rule._replace(causal=causal)
        found = []
        for attend, dtype in ((kernel, form.dtype), (_by_loop, torch.float32)):
            q, k, v = (each.to(dtype, copy=True).requires_grad_() for each in states)
            attended = attend(q, k, v, bounds, max(LENGTHS), rule)
            gradients = torch.autograd.grad((attended * weight).sum(), (q, k, v))
            found.append([attended.detach(), *gradients])
        for name, one, other in zip(("values", "q", "k", "v"), *found, strict=True):
            if not torch.allclose(one.float(), other, atol=tolerance, rtol=tolerance):
                return f"{name} differ by {float((one.float() - other).abs().max()):.2g}"
    query, key, _ = (each.to(form.dtype) for each in states)
    rule = Rule(False, None, DROPOUT, form.width**-0.5)
    ones = torch.ones_like(key)
    mean = float(kernel(query, key, ones, bounds, max(LENGTHS), rule).mean())
    return "" if abs(mean - 1) < TOLERANCE else f"the mean with dropout is {mean:.2g} times"


def _by_loop(q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, longest: int, rule: Rule) -> Tensor:
    return text_by_text(q, k, v, bounds, rule)


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
