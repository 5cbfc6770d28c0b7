"""The kernels' calls and their trials, with stand-ins for the kernels: a CPU has none.

What the kernels themselves compute is tried on the GPU, by the trials and by benchmarks/gpu.py.
"""

import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from encoders.unpadding import attention, kernels
from encoders.unpadding.kernels import (
    Kernel,
    efficient_attention,
    find_kernel,
    flash_attention,
    text_by_text,
)
from encoders.unpadding.layout import Rule, TextLayout

FAULTS = {"factor": 1.0, "dropped": 1.0}  # what the stand-in does wrong


class Given(NamedTuple):
    """Of one text and head: its places in the queries and in the keys, and its weights."""

    own: tuple[slice, int]
    shared: tuple[slice, int]
    weights: Tensor


def texts(
    q: Tensor, k: Tensor, bounds: Tensor, scale: float, left: int, right: int
) -> Iterator[Given]:
    """The softmax by loops over texts and heads."""
    for start, stop in pairwise(bounds.tolist()):
        at = torch.arange(stop - start)
        distance = at[:, None] - at
        hidden = ((left >= 0) & (distance > left)) | ((right >= 0) & (-distance > right))
        for head in range(q.shape[1]):
            own, shared = (
                (slice(start, stop), number) for number in (head, head * k.shape[1] // q.shape[1])
            )
            scores = scale * q[own] @ k[shared].T
            yield Given(own, shared, scores.masked_fill(hidden, -torch.inf).softmax(-1))


def attend(
    q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, dropout: float, scale: float, *window: int
) -> Tensor:
    """What both kernels compute."""
    found = torch.zeros_like(q)
    for own, shared, weights in texts(q, k, bounds, scale, *window):
        if dropout:
            kept = torch.rand(weights.shape) >= dropout
            weights = (weights * kept / (1 - dropout) * FAULTS["dropped"]).to(v.dtype)
        found[own] = weights @ v[shared]
    return found * FAULTS["factor"]


def gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, scale: float, *window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Without dropout."""
    for_q, for_k, for_v = (torch.zeros_like(x) for x in (q, k, v))
    for own, shared, weights in texts(q, k, bounds, scale, *window):
        for_weights = grad[own] @ v[shared].T
        inner = (for_weights * weights).sum(-1, keepdim=True)
        for_scores = scale * weights * (for_weights - inner)
        for_q[own] += for_scores @ k[shared]
        for_k[shared] += for_scores.T @ q[own]
        for_v[shared] += weights.T @ grad[own]
    return for_q, for_k, for_v


def check_bounds(q_bounds: Tensor, k_bounds: Tensor, max_q: int, max_k: int) -> None:
    assert q_bounds.dtype == torch.int32 and torch.equal(q_bounds, k_bounds)
    assert max_q == max_k == int(q_bounds.diff().max())


def flash_forward(*given: Any, **settings: Any) -> tuple[Tensor, ...]:
    """Of ``aten::_flash_attention_forward``."""
    q, k, v, q_bounds, k_bounds, max_q, max_k, dropout, is_causal, debug = given
    check_bounds(q_bounds, k_bounds, max_q, max_k)
    assert q.shape[-1] % 8 == 0 and all(x.is_contiguous() for x in (q, k, v))
    assert not is_causal and not debug
    window = settings["window_size_left"], settings["window_size_right"]
    found = attend(q, k, v, q_bounds, dropout, settings["scale"], *window)
    rest = torch.zeros(q.shape[1], q.shape[0]), torch.zeros(2, dtype=torch.uint64)
    return found, *rest, torch.zeros(0), torch.zeros(0)


def flash_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *given: Any, **named: Any) -> Any:
    """Of ``aten::_flash_attention_backward``."""
    window = named["window_size_left"], named["window_size_right"]
    return gradients(grad, q, k, v, given[2], named["scale"], *window)


def efficient_forward(*given: Any, **settings: Any) -> tuple[Any, ...]:
    """Of ``aten::_efficient_attention_forward``."""
    q, k, v, bias, q_bounds, k_bounds, max_q, max_k, dropout, mask_type, for_gradients = given
    check_bounds(q_bounds, k_bounds, max_q, max_k)
    assert q.shape == k.shape == v.shape and len(q) == 1 and q.shape[-1] % 8 == 0
    assert bias is None and for_gradients == torch.is_grad_enabled()
    found = attend(q[0], k[0], v[0], q_bounds, dropout, settings["scale"], -1, -int(not mask_type))
    lse, seed = torch.zeros(1, q.shape[2], q.shape[1]), torch.zeros((), dtype=torch.int64)
    return found[None], lse, seed, seed.clone(), max_q, max_k


def efficient_backward(*given: Any, **settings: Any) -> tuple[Any, ...]:
    """Of ``aten::_efficient_attention_backward``."""
    grad, q, k, v = (x[0] for x in given[:4])
    bounds, mask_type = given[6], given[14]
    found = gradients(grad, q, k, v, bounds, settings["scale"], -1, -int(not mask_type))
    return *(x[None] for x in found), torch.zeros(0)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    library = torch.library.Library("aten", "IMPL")
    for name, (forward, backward) in {
        "flash": (flash_forward, flash_backward),
        "efficient": (efficient_forward, efficient_backward),
    }.items():
        library.impl(f"_{name}_attention_forward", forward, "CPU")
        library.impl(f"_{name}_attention_backward", backward, "CPU")
    for name, value in FAULTS.items():
        monkeypatch.setitem(FAULTS, name, value)
    kernels._is_right.cache_clear()
    yield
    library._destroy()
    kernels._is_right.cache_clear()


RULES: dict[Kernel, list[tuple[bool, int | None]]] = {
    flash_attention: [(False, None), (True, None), (False, 4), (True, 4)],
    efficient_attention: [(False, None), (True, None)],
}
PLAIN = Rule(False, None, 0.0, 0.3)


@pytest.mark.parametrize("shared", [4, 2])
@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize(
    ("kernel", "causal", "window"), [(kernel, *rule) for kernel in RULES for rule in RULES[kernel]]
)
def test_values_and_gradients_are_those_of_the_loop(
    kernel: Kernel, causal: bool, window: int | None, width: int, shared: int
) -> None:
    torch.manual_seed(0)
    rule = Rule(causal, window, 0.0, 0.3)
    bounds = torch.tensor([0, 1, 10, 24], dtype=torch.int32)
    q, k, v = (torch.randn(24, heads, width, requires_grad=True) for heads in (4, shared, shared))
    weight = torch.randn(24, 4, width)
    found = []
    for attended in (kernel(q, k, v, bounds, 14, rule), text_by_text(q, k, v, bounds, rule)):
        found.append([attended, *torch.autograd.grad((attended * weight).sum(), (q, k, v))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "window", "kernel"),
    [
        (torch.bfloat16, None, flash_attention),
        (torch.float16, 4, flash_attention),
        (torch.float32, None, efficient_attention),
        (torch.float32, 4, None),
        (torch.float64, None, None),
    ],
)
def test_a_kernel_that_is_right_is_used_and_no_random_number_is_drawn(
    dtype: torch.dtype, window: int | None, kernel: Kernel | None, caplog: pytest.LogCaptureFixture
) -> None:
    q, k = torch.randn(5, 4, 12, dtype=dtype), torch.randn(5, 2, 12, dtype=dtype)
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert find_kernel(q, k, PLAIN._replace(window=window)) is kernel
    assert torch.equal(torch.get_rng_state(), before)
    assert not caplog.records


@pytest.mark.parametrize(
    ("fault", "message"),
    [({"factor": 1.3}, "values differ by"), ({"dropped": 1.3}, "the mean with dropout is 1.3")],
)
def test_kernels_that_are_wrong_are_not_used(
    fault: dict[str, float], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    FAULTS.update(fault)
    q = torch.randn(5, 4, 16, dtype=torch.bfloat16)
    for _ in range(3):
        assert find_kernel(q, q, PLAIN) is None
    lines = [record.getMessage() for record in caplog.records]  # said once
    assert [line.split()[0] for line in lines] == ["flash_attention", "efficient_attention"]
    assert all(message in line for line in lines)


def test_where_flash_attention_is_not_there_the_other_is_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def absent(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    q = torch.randn(5, 4, 16, dtype=torch.float16)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(torch.ops.aten, "_flash_attention_forward", absent)
        assert find_kernel(q, q, PLAIN) is efficient_attention
    assert "only supports Ampere" in caplog.text


@pytest.mark.parametrize("width", [12, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_on_a_gpu_takes_the_kernel(
    dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is chosen there, tried with the layout of a batch."""
    lengths, rule = [1, 9, 14], PLAIN
    layout = TextLayout(lengths, torch.device("cpu"))
    q, k, v = (torch.randn(24, heads, width, dtype=dtype) for heads in (4, 2, 2))
    found = attention._on_gpu(q, k, v, layout, rule)
    near = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(
        found, text_by_text(q, k, v, layout.bounds, rule), atol=near, rtol=near
    )
    with monkeypatch.context() as patch:
        patch.setattr(attention, "find_kernel", lambda *_: None)
        torch.testing.assert_close(
            attention._on_gpu(q, k, v, layout, rule), found, atol=near, rtol=near
        )
