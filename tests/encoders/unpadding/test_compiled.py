"""``torch.compile`` of layers: one graph for all batches; the same values and gradients."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import AutoModel

from encoders.unpadding import (
    compile_layers,
    parts,
    set_attention_dropout,
    speed_up_dropout,
    unpad_inputs,
)
from unpadded import batch, make

pytestmark = pytest.mark.usefixtures("no_graphs_of_other_tests")

BATCHES = [[9, 1, 30, 4, 4], [5, 5, 5], [40, 2], [3] * 30]
LONG = [40] * 60  # enough tokens for a packed sequence on each of two cores


@pytest.fixture
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def model_of(name: str, dropout: float = 0.0, backend: str | None = None) -> Any:
    """In training, with or without ``torch.compile``."""
    model: Any = make(name, AutoModel).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    speed_up_dropout(model)
    assert unpad_inputs(model)
    set_attention_dropout(model, dropout)
    if backend is not None:
        compile_layers(model, backend)
    return model


def step(model: Any, inputs: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The states of a batch, and the gradients of all weights."""
    torch.manual_seed(seed)
    model.zero_grad()
    states = model(**inputs).last_hidden_state * inputs["attention_mask"][..., None]
    weight = torch.cos(torch.arange(states.numel(), dtype=torch.float64)).view_as(states)
    (states * weight).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"states": states.detach(), **gradients}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        close = 1e-10 if values.dtype == torch.float64 else 1e-5
        scale = max(1.0, float(values.abs().max()))
        torch.testing.assert_close(values, other[name], atol=close * scale, rtol=10 * close)


@pytest.mark.parametrize(
    ("name", "backend", "graphs"),
    [
        ("bert", "aot_eager", 1),
        ("distilbert", "aot_eager", 1),
        ("xlm-roberta", "aot_eager", 1),
        ("modernbert", "aot_eager", 2),  # its first layer has no norm, its second a window
        ("qwen3 sliding", "aot_eager", 2),  # a layer with a window, and one without
    ],
)
def test_one_graph_for_all_batches_and_layers(name: str, backend: str, graphs: int) -> None:
    plain, compiled = model_of(name), model_of(name, backend=backend)
    for lengths in BATCHES:
        inputs = batch(lengths)
        assert_same(step(compiled, inputs), step(plain, inputs))
        assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_cores_share_a_packed_sequence_in_training(two_cores: None) -> None:
    """Compiled kernels hold Python's lock: in threads of their own they would wait in turn."""
    plain, compiled = model_of("bert"), model_of("bert", backend="aot_eager")
    seen: list[str] = []
    compiled.encoder.layer[0].register_forward_pre_hook(
        lambda *_: seen.append(threading.current_thread().name)
    )
    for lengths in (LONG, LONG[:56], [30, 4]):
        assert_same(step(compiled, batch(lengths)), step(plain, batch(lengths)))
    assert set(seen) == {"MainThread"}
    assert counters["stats"]["unique_graphs"] == 1
    seen.clear()
    with torch.inference_mode():
        compiled.eval()(**batch(LONG))
    assert len(seen) == 2 and "MainThread" not in seen


def test_evaluation_runs_as_it_is() -> None:
    plain, compiled = model_of("bert").eval(), model_of("bert", backend="aot_eager").eval()
    with torch.inference_mode():
        states = [model(**batch([9, 4])).last_hidden_state for model in (plain, compiled)]
    assert torch.equal(*states)
    assert not counters["stats"]


@pytest.mark.parametrize("fast", [True, False])
def test_gradients_are_those_of_what_dropout_has_kept(
    fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against differences of the states: backward drops the attention weights of forward."""
    monkeypatch.setattr(parts, "fast_dropout", fast)
    model, inputs = model_of("bert", dropout=0.3, backend="aot_eager"), batch([9, 4, 17])
    found = step(model, inputs)
    weight = model.encoder.layer[0].attention.self.query.weight
    direction = torch.cos(torch.arange(weight.numel(), dtype=torch.float64)).view_as(weight)
    losses = []
    for size in (1e-5, -2e-5):
        with torch.no_grad():
            weight += size * direction
        states = step(model, inputs)["states"]
        losses.append(torch.cos(torch.arange(states.numel())).double() @ states.flatten())
    slope = float(losses[0] - losses[1]) / 2e-5
    name = "encoder.layer.0.attention.self.query.weight"
    assert slope == pytest.approx(float((found[name] * direction).sum()), rel=1e-5)


def test_dropout_is_drawn_by_the_seed(two_cores: None) -> None:
    model, inputs = model_of("bert", dropout=0.3, backend="aot_eager"), batch(LONG)
    first, again, other = (step(model, inputs, seed) for seed in (0, 0, 1))
    assert all(torch.equal(values, again[name]) for name, values in first.items())
    assert not torch.allclose(first["states"], other["states"])


def test_with_gradient_checkpointing() -> None:
    """Layers are computed again with the dropout that they had."""
    model, inputs = model_of("bert", dropout=0.3, backend="aot_eager"), batch([9, 1, 30])
    model(**inputs)  # graphs are made
    held = step(model, inputs)
    model.activation_checkpointing_enable()
    assert_same(step(model, inputs), held)


def test_a_pass_without_gradients_has_the_same_dropout() -> None:
    """As the gradient cache needs it: the first pass keeps nothing, the second has gradients."""
    model, inputs = model_of("bert", dropout=0.3, backend="aot_eager"), batch([9, 1, 30])
    torch.manual_seed(0)
    with torch.no_grad():
        first = model(**inputs).last_hidden_state * inputs["attention_mask"][..., None]
    torch.testing.assert_close(first, step(model, inputs)["states"], atol=1e-10, rtol=0)


def test_only_adapters_are_trained() -> None:
    """No weight of the embeddings has a gradient, and so their output has none of its own."""
    plain, compiled = model_of("qwen3"), model_of("qwen3", backend="aot_eager")
    for model in (plain, compiled):
        for name, weight in model.named_parameters():
            weight.requires_grad_("q_proj" in name)
    for lengths in BATCHES[:2]:
        assert_same(step(compiled, batch(lengths)), step(plain, batch(lengths)))
    assert counters["stats"]["unique_graphs"] == 1
