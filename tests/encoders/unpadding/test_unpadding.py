"""With padding taken out, a model gives what it gave with padding: states, scores, gradients."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    ConvBertConfig,
    DebertaV2Config,
    Llama4TextConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedModel,
    VaultGemmaConfig,
)

from encoders import Embedder
from encoders.unpadding import unpad_inputs
from unpadded import CONFIGS, DECODER, SMALL, batch, make

LENGTHS = [[9, 1, 30, 4, 4], [5, 5, 5], [1], [40, 2]]


def gradients(model: PreTrainedModel, value: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    value.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(
    one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]
) -> None:
    """Values, and gradients by parameter."""
    assert torch.allclose(one[0], other[0], atol=1e-10, rtol=0)
    assert one[1].keys() == other[1].keys()
    for parameter, gradient in one[1].items():
        assert torch.allclose(gradient, other[1][parameter], atol=1e-9, rtol=1e-9), parameter


def assert_equal_as_backbone(name: str, lengths: list[int], checkpointing: bool = False) -> None:
    inputs = batch(lengths)
    mask = inputs["attention_mask"][..., None]
    direction = torch.randn(1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for unpadded in (False, True):
        model = make(name, AutoModel)
        if unpadded:
            assert unpad_inputs(model)
        if checkpointing:
            model.activation_checkpointing_enable()
            model.train()
        states = model(**inputs).last_hidden_state
        assert states.shape[:2] == inputs["input_ids"].shape
        weight = torch.cos(torch.arange(states.numel(), dtype=torch.float64)).view_as(states)
        loss = (states * mask * weight * direction).sum()
        found.append((states.detach() * mask, gradients(model, loss)))
    assert_same(*found)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", CONFIGS)
def test_states_and_gradients_of_a_backbone(name: str, lengths: list[int]) -> None:
    assert_equal_as_backbone(name, lengths)


@pytest.mark.parametrize("lengths", [*LENGTHS, [17]])
@pytest.mark.parametrize("name", CONFIGS)
def test_without_gradients(name: str, lengths: list[int]) -> None:
    """Paths of their own: a text alone, and tokens rounded up; causal, in windows, shared heads."""
    inputs, found = batch(lengths), []
    mask = inputs["attention_mask"][..., None]
    for unpadded in (False, True):
        model = make(name, AutoModel)
        if unpadded:
            assert unpad_inputs(model)
        with torch.inference_mode():
            output = model(**inputs, output_hidden_states=True)
        found.append([output.last_hidden_state * mask, *(x * mask for x in output.hidden_states)])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", ["bert", "modernbert", "qwen3"])
def test_with_gradient_checkpointing(name: str) -> None:
    assert_equal_as_backbone(name, [9, 1, 30, 4], checkpointing=True)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", CONFIGS)
def test_scores_and_gradients_of_a_classifier(name: str, lengths: list[int]) -> None:
    """Its backbone is called positionally by some; heads take the pooler, a token, or the last."""
    inputs = batch(lengths)
    found = []
    for unpadded in (False, True):
        model = make(name, AutoModelForSequenceClassification)
        if unpadded:
            assert unpad_inputs(model)
        scores = model(**inputs).logits[:, 0]
        assert scores.shape == (len(lengths),)
        weight = torch.arange(1.0, len(lengths) + 1, dtype=torch.float64)
        found.append((scores.detach(), gradients(model, (scores * weight).sum())))
    assert_same(*found)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(list(CONFIGS)),
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=6),
)
def test_any_lengths(name: str, lengths: list[int]) -> None:
    assert_equal_as_backbone(name, lengths)


@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_padding_on_the_left(name: str) -> None:
    inputs = batch([7, 2, 12], left=True)
    mask = inputs["attention_mask"][..., None]
    plain, unpadded = make(name, AutoModel), make(name, AutoModel)
    assert unpad_inputs(unpadded)
    expected = plain(**inputs).last_hidden_state * mask
    # Rotary angles are fp32, and a text's positions begin elsewhere than with padding before it.
    found = unpadded(**inputs).last_hidden_state * mask
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_token_types_hidden_states_and_a_missing_mask() -> None:
    inputs = batch([6, 3]) | {"token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)}
    mask = inputs["attention_mask"][..., None]
    plain, unpadded = make("bert", AutoModel), make("bert", AutoModel)
    assert unpad_inputs(unpadded)
    one, other = (model(**inputs, output_hidden_states=True) for model in (plain, unpadded))
    assert len(one.hidden_states) == len(other.hidden_states) == 3
    for expected, found in zip(one.hidden_states, other.hidden_states, strict=True):
        assert torch.allclose(found * mask, expected * mask, atol=1e-10)
    assert torch.allclose(one.pooler_output, other.pooler_output, atol=1e-10)
    ids = inputs["input_ids"][:1]
    assert torch.allclose(plain(ids).last_hidden_state, unpadded(ids).last_hidden_state, atol=1e-10)


def test_padding_is_not_computed_on() -> None:
    model: Any = make("bert", AutoModel)
    assert unpad_inputs(model)
    seen = []
    model.encoder.layer[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    model(**batch([9, 1, 30, 4]))
    assert seen == [(1, 44, 32)]


def test_without_gradients_few_sizes_are_computed() -> None:
    """Each has kernels of its own, whose memory a server would not get back."""
    model: Any = make("bert", AutoModel)
    assert unpad_inputs(model)
    seen: set[int] = set()
    model.encoder.layer[0].register_forward_pre_hook(lambda _, args: seen.add(args[0].shape[1]))
    with torch.inference_mode():
        for length in range(1, 61):
            model(**batch([length]))
        assert seen == {16, 32, 48, 64}
        for count in range(2, 120):
            model(**batch([9] * count))
    assert all(size % 16 == 0 for size in seen)


@pytest.mark.parametrize(
    "config",
    [
        DebertaV2Config(**SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"]),
        MPNetConfig(**SMALL),
        # Not seen in a few tokens: scores that are capped, and attention in chunks.
        VaultGemmaConfig(**DECODER),
        Llama4TextConfig(**DECODER, num_local_experts=2, moe_layers=[], intermediate_size_mlp=48),
    ],
)
def test_a_backbone_that_cannot_take_it_runs_padded_and_says_so(
    config: PreTrainedConfig, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    before = model(**batch([5, 2])).last_hidden_state
    assert not unpad_inputs(model)
    assert torch.equal(model(**batch([5, 2])).last_hidden_state, before)
    (message,) = caplog.messages
    assert (
        message
        == f"{config.model_type} cannot run without padding: it runs padded, which is slower"
    )


def test_a_backbone_that_computes_on_padding_says_so(caplog: pytest.LogCaptureFixture) -> None:
    config = ConvBertConfig(**SMALL, embedding_size=32, initializer_range=0.3)
    for wanted in (True, False):
        caplog.clear()
        assert not unpad_inputs(AutoModel.from_config(config), wanted)
        assert "convbert computes on padding" in caplog.messages[-1]
        assert len(caplog.messages) == 1 + wanted


def test_the_switch_of_an_embedder(tiny_bert: Path, tmp_path: Path) -> None:
    texts = ["a cat", "the capital of France is Paris", "天气"]
    on, off = (
        Embedder.from_pretrained(tiny_bert),
        Embedder.from_pretrained(tiny_bert, unpad_inputs=False),
    )
    assert on.unpadded
    assert not off.unpadded
    assert torch.allclose(on.encode(texts), off.encode(texts), atol=1e-6)
    on.save_pretrained(tmp_path)
    assert "unpadded" not in (tmp_path / "config.json").read_text()
