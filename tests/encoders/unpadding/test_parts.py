"""Each part of unpadding can be switched off by itself, and results stay the same."""

import threading
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel

from encoders.unpadding import Parts, packing, parts, speed_up_dropout, unpad_inputs
from encoders.unpadding.layout import TextLayout
from unpadded import CONFIGS, batch, make

LENGTHS = [3, 40, 17, 1, 33, 9, 28, 40, 12, 5, 22, 31]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On which so few tokens are packed into two sequences, in training too."""
    monkeypatch.setattr(packing, "MIN_TOKENS", 64)
    monkeypatch.setattr(packing, "MIN_TOKENS_IN_TRAINING", 64)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def open_model(name: str) -> Any:
    model = make(name, AutoModel)
    speed_up_dropout(model)
    assert unpad_inputs(model)
    return model


def run(name: str) -> list[Tensor]:
    """States of a batch with gradients, these gradients, and states without."""
    model = open_model(name)
    states = model(**batch(LENGTHS)).last_hidden_state
    states.square().sum().backward()
    with torch.inference_mode():
        again = model(**batch(LENGTHS)).last_hidden_state
    return [states.detach(), again, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("part", [part.name for part in fields(Parts)])
def test_results_are_the_same_without_a_part(
    part: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(name)
    monkeypatch.setattr(parts, part, False)
    found = run(name)
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def threads_of(model: Any) -> list[str]:
    """The thread of each packed sequence of a batch."""
    seen: list[str] = []
    handle = model.encoder.layer[0].register_forward_pre_hook(
        lambda *_: seen.append(threading.current_thread().name.partition("_")[0])
    )
    model(**batch(LENGTHS))
    handle.remove()
    return seen


def test_several_sequences_and_worker_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model("bert")
    assert threads_of(model) == ["compute"] * 2
    with monkeypatch.context() as patch:
        patch.setattr(parts, "worker_threads", False)
        assert set(threads_of(model)) == {"MainThread"}
    monkeypatch.setattr(parts, "several_sequences", False)
    assert threads_of(model) == ["MainThread"]


def test_without_fast_dropout_torch_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "fast_dropout", False)
    model = open_model("roberta").train()
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {nn.Dropout}
    assert set(threads_of(model)) == {"MainThread"}  # the order of its draws must not vary
    torch.manual_seed(0)
    one = model(**batch(LENGTHS)).last_hidden_state
    torch.manual_seed(0)
    assert torch.equal(one, model(**batch(LENGTHS)).last_hidden_state)


@pytest.mark.parametrize("part", ["fast_dropout", "grouped_attention"])
def test_dropout_of_attention_keeps_its_mean(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ModernBERT's attention drops weights in the kernel, without a module."""
    model: Any = make("modernbert", AutoModel)
    for layer in model.layers:
        layer.attn.attention_dropout = 0.2
    monkeypatch.setattr(parts, part, False)
    assert unpad_inputs(model)
    # Many copies of the batch in a few passes: each copy is a draw of its own.
    copies = {name: values.repeat(20, 1) for name, values in batch(LENGTHS).items()}
    with torch.no_grad():
        expected = model(**batch(LENGTHS)).last_hidden_state
        model.train()
        torch.manual_seed(0)
        passes = [model(**copies).last_hidden_state for _ in range(10)]
    draws = torch.cat(passes).unflatten(0, (-1, len(LENGTHS)))
    assert not torch.equal(draws[0], draws[1])
    error = (draws.mean(dim=0) - expected).abs().mean()
    assert error < 0.1 * expected.abs().mean()


def test_without_grouped_attention_texts_attend_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("grouped")

    model = open_model("bert")
    monkeypatch.setattr(TextLayout, "pack", fail)
    with pytest.raises(AssertionError, match="grouped"):
        model(**batch(LENGTHS))
    monkeypatch.setattr(parts, "grouped_attention", False)
    model(**batch(LENGTHS))
