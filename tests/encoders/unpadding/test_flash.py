"""The flash kernel's call and its trial, with a stand-in for the kernel: torch has none for a CPU.

What the kernel itself computes is tried on the GPU, by the trial and by benchmarks/gpu.py.
"""

import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from encoders.unpadding import flash
from encoders.unpadding.flash import flash_attention, has_flash, text_by_text
from encoders.unpadding.layout import Rule

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


def forward(*given: Any, **settings: Any) -> tuple[Tensor, ...]:
    """Of ``aten::_flash_attention_forward``."""
    q, k, v, q_bounds, k_bounds, max_q, max_k, dropout, is_causal, debug = given
    assert q_bounds.dtype == torch.int32 and torch.equal(q_bounds, k_bounds)
    assert max_q == max_k == int(q_bounds.diff().max())
    assert q.shape[-1] % 8 == 0 and all(x.is_contiguous() for x in (q, k, v))
    assert not is_causal and not debug
    window = settings["window_size_left"], settings["window_size_right"]
    found = torch.zeros_like(q)
    for own, shared, weights in texts(q, k, q_bounds, settings["scale"], *window):
        if dropout:
            kept = torch.rand(weights.shape) >= dropout
            weights = (weights * kept / (1 - dropout) * FAULTS["dropped"]).to(v.dtype)
        found[own] = weights @ v[shared]
    rest = torch.zeros(q.shape[1], q.shape[0]), torch.zeros(2, dtype=torch.uint64)
    return found * FAULTS["factor"], *rest, torch.zeros(0), torch.zeros(0)


def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *given: Any, **settings: Any) -> Any:
    """Of ``aten::_flash_attention_backward``, without dropout."""
    bounds, scale = given[2], settings["scale"]
    window = settings["window_size_left"], settings["window_size_right"]
    for_q, for_k, for_v = (torch.zeros_like(x) for x in (q, k, v))
    for own, shared, weights in texts(q, k, bounds, scale, *window):
        for_weights = grad[own] @ v[shared].T
        inner = (for_weights * weights).sum(-1, keepdim=True)
        for_scores = scale * weights * (for_weights - inner)
        for_q[own] += for_scores @ k[shared]
        for_k[shared] += for_scores.T @ q[own]
        for_v[shared] += weights.T @ grad[own]
    return for_q, for_k, for_v


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    for name, value in FAULTS.items():
        monkeypatch.setitem(FAULTS, name, value)
    flash._is_right.cache_clear()
    yield
    library._destroy()
    flash._is_right.cache_clear()


@pytest.mark.parametrize("shared", [4, 2])
@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize(
    "rule", [Rule(False, None, 0.0, 0.3), Rule(True, None, 0.0, 0.3), Rule(False, 4, 0.0, 0.3),
             Rule(True, 4, 0.0, 0.3)])  # fmt: skip
def test_values_and_gradients_are_those_of_the_loop(rule: Rule, width: int, shared: int) -> None:
    torch.manual_seed(0)
    bounds = torch.tensor([0, 1, 10, 24], dtype=torch.int32)
    q, k, v = (torch.randn(24, heads, width, requires_grad=True) for heads in (4, shared, shared))
    weight = torch.randn(24, 4, width)
    found = []
    for attended in (
        flash_attention(q, k, v, bounds, 14, rule), text_by_text(q, k, v, bounds, rule)
    ):  # fmt: skip
        found.append([attended, *torch.autograd.grad((attended * weight).sum(), (q, k, v))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_kernel_that_is_right_is_used_and_no_random_number_is_drawn() -> None:
    q, k = torch.randn(5, 4, 12, dtype=torch.bfloat16), torch.randn(5, 2, 12)
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert has_flash(q, k)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("fault", "message"),
    [({"factor": 1.3}, "values differ by"), ({"dropped": 1.3}, "the mean with dropout is 1.3")],
)
def test_a_kernel_that_is_wrong_is_not_used(
    fault: dict[str, float], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    FAULTS.update(fault)
    q = torch.randn(5, 4, 16, dtype=torch.bfloat16)
    for _ in range(3):
        assert not has_flash(q, q)
    (line,) = [record.getMessage() for record in caplog.records]  # said once
    assert message in line


def test_a_kernel_that_is_not_there_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def absent(*_: Any) -> Tensor:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    monkeypatch.setattr(flash, "flash_attention", absent)
    with caplog.at_level(logging.WARNING):
        assert not has_flash(*[torch.randn(5, 4, 16, dtype=torch.float16)] * 2)
    assert "only supports Ampere" in caplog.text
