"""Attention and dropout masks as operators: one node each in a graph of ``torch.compile``.

What they do depends on the lengths of texts and would be another graph for every batch. As
operators they run uncompiled, and only shapes are known to the graph. Backward computes the
attention again, since what it would keep differs in number from batch to batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from encoders.unpadding.attention import attend
from encoders.unpadding.dropout import dropped, layer_seed, seeded
from encoders.unpadding.layout import Rule, TextLayout

# Shapes: T tokens of a packed sequence, A attention heads, D width of a head, n texts.


@torch.library.custom_op("tandem::attend", mutates_args=())
def attend_operator(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds: Tensor,
    causal: bool,
    window: int | None,
    dropout: float,
    scaling: float,
) -> tuple[Tensor, Tensor]:
    """[T, A, D] to [T, A, D], and the seed of its dropout; ``bounds`` [n + 1] are on the host."""
    seed = layer_seed() if dropout else 0
    rule = Rule(causal, window, dropout, scaling)
    with _drawing(seed, q, rule):
        states = attend(q, k, v, _layout(bounds, q.device), rule)
    return states.contiguous(), torch.tensor(seed)


@attend_operator.register_fake
def _(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q, memory_format=torch.contiguous_format), torch.empty(
        (), dtype=torch.long, device="cpu"
    )


# Below this operator autograd stays on, unlike below a ``custom_op``.
_library = torch.library.Library("tandem", "FRAGMENT")
_library.define(
    "attend_backward(Tensor gradient, Tensor q, Tensor k, Tensor v, Tensor bounds, Tensor seed, "
    "bool causal, int? window, float dropout, float scaling) -> (Tensor, Tensor, Tensor)"
)
_library.impl("attend_backward", torch.library.fallthrough_kernel, "Autograd")


@torch.library.impl(_library, "attend_backward", "CompositeExplicitAutograd")
def _attend_backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, seed: Tensor, *rule: Any
) -> tuple[Tensor, ...]:
    q, k, v = (states.detach().requires_grad_() for states in (q, k, v))
    with torch.enable_grad(), _drawing(int(seed), q, Rule(*rule)):
        states = attend(q, k, v, _layout(bounds, q.device), Rule(*rule))
    return tuple(x.contiguous() for x in torch.autograd.grad(states, (q, k, v), gradient))


def _fake_backward(gradient: Tensor, *given: Any) -> tuple[Tensor, ...]:
    form = torch.contiguous_format
    return tuple(torch.empty_like(states, memory_format=form) for states in given[:3])


torch.library.register_fake("tandem::attend_backward", _fake_backward)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bounds, *ctx.rule = inputs
    ctx.save_for_backward(q, k, v, bounds, output[1])


def _backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    found = torch.ops.tandem.attend_backward(gradient, *ctx.saved_tensors, *ctx.rule)
    return (*found, *[None] * 5)


attend_operator.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op("tandem::dropped", mutates_args=())
def dropped_operator(like: Tensor, probability: float, site: int) -> Tensor:
    """True where a value is dropped, in the shape of ``like``."""
    with seeded((layer_seed(), site)):
        return dropped(like, probability)


@dropped_operator.register_fake
def _(like: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(like, dtype=torch.bool, memory_format=torch.contiguous_format)


@contextmanager
def _drawing(seed: int, like: Tensor, rule: Rule) -> Iterator[None]:
    """Compute outside autocast, and drop by ``seed``, whichever generator the kernel has."""
    with torch.autocast(like.device.type, enabled=False):
        if not rule.dropout:
            yield
            return
        with torch.random.fork_rng([like.device] if like.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield


def _layout(bounds: Tensor, device: torch.device) -> TextLayout:
    return _layout_of(tuple(bounds.diff().tolist()), device)


@lru_cache(maxsize=32)  # all layers of a packed sequence ask for it, one after another
def _layout_of(lengths: tuple[int, ...], device: torch.device) -> TextLayout:
    return TextLayout(list(lengths), device)
