"""Packed sequences computed in parallel give what one after another gives, and leave no trace."""

import random
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification, OPTConfig, OPTModel

from encoders.unpadding import packing, parallel_map, speed_up_dropout, unpad_inputs
from encoders.unpadding.packing import balance
from unpadded import CONFIGS, batch, make

LENGTHS = random.Random(0).choices(range(1, 50), k=40)  # of some 1,000 tokens


@pytest.fixture(params=[2, 3])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many threads for torch, on however many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def watched(model: Any) -> list[str]:
    """The thread of each call of the backbone's first dropout, as they come."""
    seen: list[str] = []
    model.base_model.encoder.layer[0].register_forward_pre_hook(
        lambda *_: seen.append(threading.current_thread().name)
    )
    return seen


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_states_are_those_of_a_padded_batch(name: str, cores: int) -> None:
    inputs = batch(LENGTHS)
    mask = inputs["attention_mask"][..., None]
    plain, unpadded = make(name, AutoModel), make(name, AutoModel)
    assert unpad_inputs(unpadded)
    expected, found = (model(**inputs).last_hidden_state * mask for model in (plain, unpadded))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("name", CONFIGS)
def test_scores_are_those_of_a_padded_batch(name: str, cores: int) -> None:
    """A pooler takes the first tokens of its own packed sequence."""
    inputs = batch(LENGTHS)
    plain, unpadded = (make(name, AutoModelForSequenceClassification) for _ in range(2))
    assert unpad_inputs(unpadded)
    for _ in range(5):
        found, expected = (model(**inputs).logits for model in (unpadded, plain))
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_each_core_has_a_packed_sequence(cores: int) -> None:
    model = make("bert", AutoModel)
    assert unpad_inputs(model)
    seen = watched(model)
    with torch.inference_mode():
        model(**batch(LENGTHS))
    assert len(seen) == cores
    assert all(name.startswith("compute") for name in seen)


@pytest.mark.parametrize(
    ("lengths", "why"),
    [([60, 8, 8], "too few tokens"), ([64] + [2] * 40 + [60], "one text is most of them")],
)
def test_cores_share_a_packed_sequence(lengths: list[int], why: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    model = make("bert", AutoModel)
    assert unpad_inputs(model)
    seen = watched(model)
    with torch.inference_mode():
        model(**batch(lengths))
    torch.set_num_threads(before)
    assert seen == ["MainThread"], why


# Training


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForSequenceClassification])
def test_gradients_are_those_of_a_padded_batch(
    auto: Any, name: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MIN_TOKENS_IN_TRAINING", 128)
    inputs = batch(LENGTHS)
    mask = inputs["attention_mask"][..., None]
    plain, unpadded = make(name, auto), make(name, auto)
    assert unpad_inputs(unpadded)
    for model in (plain, unpadded):
        output = model(**inputs, output_hidden_states=True)
        value = sum((layer * mask).square().sum() for layer in output.hidden_states)
        if auto is AutoModelForSequenceClassification:
            value = value + output.logits.square().sum()
        value.backward()
    weights = zip(unpadded.named_parameters(), plain.parameters(), strict=True)
    for (weight_name, one), other in weights:
        assert (one.grad is None) == (other.grad is None), weight_name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-9, rtol=1e-9)


def with_dropout() -> Any:
    model = make("roberta", AutoModel)
    speed_up_dropout(model)
    assert unpad_inputs(model)
    return model.train()


def test_dropout_does_not_depend_on_which_thread_is_first(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MIN_TOKENS_IN_TRAINING", 128)
    model, inputs = with_dropout(), batch(LENGTHS)
    seen = watched(model)
    found = []
    for seed in [1, 1, 1, 2]:
        torch.manual_seed(seed)
        model.zero_grad()
        states = model(**inputs).last_hidden_state
        states.square().sum().backward()
        with torch.no_grad():  # the gradient cache's first pass
            torch.manual_seed(seed)
            assert torch.equal(model(**inputs).last_hidden_state, states)
        found.append(
            [states.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        )
    assert len(seen) == 8 * cores and all(name.startswith("compute") for name in seen)
    for other in found[1:3]:
        assert all(map(torch.equal, found[0], other))
    assert not torch.equal(found[0][0], found[3][0])


def test_packed_sequences_drop_differently(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MIN_TOKENS_IN_TRAINING", 128)
    model = with_dropout()
    inputs = {name: values[:1].expand(12, -1) for name, values in batch([60]).items()}
    states = model(**inputs).last_hidden_state
    assert all(not torch.equal(states[0], other) for other in states[1:])


def test_what_draws_by_itself_keeps_to_one_thread(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MIN_TOKENS_IN_TRAINING", 128)
    torchs = make("roberta", AutoModel)
    checkpointed = make("bert", AutoModel)
    checkpointed.activation_checkpointing_enable()
    for model in (torchs, checkpointed):
        assert unpad_inputs(model)
        seen = watched(model)
        model.train()(**batch(LENGTHS))
        assert set(seen) == {"MainThread"}


def test_dropout_that_is_no_module_keeps_to_one_thread(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPT calls ``nn.functional.dropout``: threads would take turns at torch's generator."""
    monkeypatch.setattr(packing, "MIN_TOKENS_IN_TRAINING", 128)
    sizes: dict[str, Any] = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 90}
    model = OPTModel(OPTConfig(**sizes, max_position_embeddings=64, dropout=0.1))
    speed_up_dropout(model)
    before = torch.get_rng_state()
    assert unpad_inputs(model)
    assert torch.equal(torch.get_rng_state(), before)
    model.train()
    found = []
    for _ in range(5):
        torch.manual_seed(1)
        found.append(model(**batch(LENGTHS)).last_hidden_state.detach())
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_few_tokens_are_trained_in_one_packed_sequence(cores: int) -> None:
    model = with_dropout()
    seen = watched(model)
    model(**batch([30] * 10))
    assert seen == ["MainThread"]


def test_bf16_goes_along(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MIN_TOKENS_IN_TRAINING", 128)
    model = make("bert", AutoModel).float()
    assert unpad_inputs(model)
    inputs, found = batch(LENGTHS), []
    for threads in (cores, 1):
        torch.set_num_threads(threads)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            states = model(**inputs).last_hidden_state
        states.float().square().sum().backward()
        found.append([states, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert found[0][1].dtype == torch.float32
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(
            one, other, rtol=0.05, atol=0.02 * float(other.detach().abs().max())
        )


def test_autocast_goes_along_and_ends(cores: int) -> None:
    def dtype(_: int) -> torch.dtype:
        return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            assert parallel_map(dtype, range(6)) == [torch.bfloat16] * 6
        assert parallel_map(dtype, range(6)) == [torch.float32] * 6


def threads_here(_: int = 0) -> set[str]:
    """How many threads OpenMP and MKL would take in the thread that asks."""
    return set(
        re.findall(r"(?:omp|mkl)_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())
    )


def test_workers_compute_alone_and_other_threads_as_before(cores: int) -> None:
    assert parallel_map(threads_here, range(8)) == [{"1"}] * 8
    assert threads_here() == {str(cores)}
    found: list[int] = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [torch.get_num_threads()] == [cores]


def test_modes_go_along(cores: int) -> None:
    def modes(_: int) -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert set(parallel_map(modes, range(4))) == {(False, True)}
    assert set(parallel_map(modes, range(4))) == {(False, False)}


def test_an_error_in_a_part_comes_out(cores: int) -> None:
    def fail(part: int) -> Tensor:
        if part == 2:
            raise RuntimeError("of part 2")
        return torch.zeros(1)

    with pytest.raises(RuntimeError, match="of part 2"):
        parallel_map(fail, range(4))
    assert parallel_map(abs, [-1, 2]) == [1, 2]


@given(lengths=st.lists(st.integers(1, 500), min_size=1), bins=st.integers(1, 9))
def test_every_text_is_in_one_bin_and_bins_are_even(lengths: list[int], bins: int) -> None:
    pieces = balance(lengths, bins)
    assert sorted(text for piece in pieces for text in piece) == list(range(len(lengths)))
    assert len(pieces) == min(bins, len(lengths))
    tokens = [sum(lengths[text] for text in piece) for piece in pieces]
    assert max(tokens) - min(tokens) <= max(lengths)
    for piece in pieces:
        own = [lengths[text] for text in piece]
        assert own == sorted(own)
