"""Attention within a packed sequence: against a naive loop over the texts, forward and backward."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.unpadding import attention, cut_by_tokens
from encoders.unpadding.dropout import Dropout, dropout_mask, scale
from encoders.unpadding.layout import TextLayout

LENGTHS = [1, 2, 15, 16, 16, 17, 33, 48]
HEADS, WIDTH = 4, 8


def states(key_heads: int = HEADS, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Query, key and value [1, A, T, D]."""
    generator = torch.Generator().manual_seed(0)
    tokens = sum(LENGTHS)
    shapes = [(1, heads, tokens, WIDTH) for heads in (HEADS, key_heads, key_heads)]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [x.to(dtype).requires_grad_() for x in made]


def naive(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None) -> Tensor:
    """One text, one head, one token at a time: [1, T, A, D]."""
    out = torch.zeros(1, q.shape[2], HEADS, WIDTH, dtype=q.dtype)
    rows = []
    start = 0
    for length in LENGTHS:
        for i in range(length):
            for head in range(HEADS):
                of = head // (HEADS // k.shape[1])
                first = 0 if window is None else max(0, i - window + 1)
                last = length if window is None else min(length, i + window)
                if causal:
                    last = i + 1
                at = slice(start + first, start + last)
                weights = (k[0, of, at] @ q[0, head, start + i] / WIDTH**0.5).softmax(0)
                rows.append(weights @ v[0, of, at])
        start += length
    return torch.stack(rows).view_as(out)


def attend(given: Sequence[Tensor], layout: TextLayout, **settings: Any) -> Tensor:
    """What a layer of a model gets: [1, T, A, D]."""
    q, k, v = given
    layer = torch.nn.Module()
    return attention.unpadded_attention(layer, q, k, v, None, layout=layout, **settings)[0]


@pytest.mark.parametrize("way", ["products", "torch"])
@pytest.mark.parametrize(
    ("causal", "window", "key_heads"),
    [(False, None, 4), (True, None, 2), (False, 5, 4), (True, 3, 1), (False, 100, 2)],
)
def test_states_and_gradients_are_those_of_a_loop(
    way: str,
    causal: bool,
    window: int | None,
    key_heads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Long texts take torch's kernel; here all of them, or none. Few scores at once: many tiles.
    monkeypatch.setattr(attention, "LONG", 0 if way == "torch" else 10**9)
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", 2000)
    layout = TextLayout(LENGTHS, torch.device("cpu"))
    results = []
    for function in ("loop", "ours"):
        q, k, v = states(key_heads)
        if function == "loop":
            found = naive(q, k, v, causal, window)
        else:
            found = attend((q, k, v), layout, sliding_window=window, is_causal=causal)
        assert found.shape == (1, sum(LENGTHS), HEADS, WIDTH)
        weight = torch.cos(torch.arange(found.numel(), dtype=found.dtype)).view_as(found)
        (found * weight).sum().backward()
        results.append([found, q.grad, k.grad, v.grad])
    for expected, ours in zip(*results, strict=True):
        assert expected is not None and ours is not None
        assert torch.allclose(ours, expected, atol=1e-10, rtol=1e-10)


def test_gradients_with_dropout_are_those_of_finite_differences() -> None:
    layout = TextLayout([3, 5], torch.device("cpu"))

    def with_the_same_dropout(*given: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attend(given, layout, dropout=0.4, is_causal=False)

    given = [torch.randn(1, 2, 8, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(with_the_same_dropout, given)


def test_attention_with_dropout_has_the_mean_of_attention_without() -> None:
    layout = TextLayout(LENGTHS, torch.device("cpu"))
    given = [x.detach() for x in states()]
    torch.manual_seed(0)
    drawn = [attend(given, layout, dropout=0.2, is_causal=False) for _ in range(600)]
    # The deviation of one draw is some 0.5 of a value's size, of the mean of 600 some 0.02.
    expected = attend(given, layout, is_causal=False)
    assert (torch.stack(drawn).mean(dim=0) - expected).abs().mean() < 0.03
    assert (drawn[0] - expected).abs().mean() > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_and_short_texts_agree_in_both_precisions(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = TextLayout(LENGTHS, torch.device("cpu"))
    found = []
    for long in (0, 10**9):
        monkeypatch.setattr(attention, "LONG", long)
        found.append(attend(states(dtype=dtype), layout, is_causal=True))
    assert found[0].dtype == dtype
    close = 2e-2 if dtype == torch.bfloat16 else 1e-6
    assert torch.allclose(found[0], found[1], atol=close)


# Dropout


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    values = torch.ones(1_000_003)
    for probability in (0.1, 0.5, 0.999):
        torch.manual_seed(0)
        gone = dropout_mask(values, probability)
        assert set(gone.unique().tolist()) <= {0.0, 1.0}
        deviation = (probability * (1 - probability) / values.numel()) ** 0.5
        assert abs(gone.mean().item() - probability) < 5 * deviation + 1e-5
    layer = Dropout(0.25)
    torch.manual_seed(1)
    found = layer(values)
    assert torch.allclose(found.unique(), torch.tensor([0.0, scale(0.25)]))
    assert abs(found.mean().item() - 1) < 5e-3
    assert not torch.equal(found, layer(values))
    torch.manual_seed(1)
    assert torch.equal(found, layer(values))


def test_neighbouring_values_are_dropped_independently() -> None:
    torch.manual_seed(0)
    gone = dropout_mask(torch.ones(800_000), 0.5)
    for shift in (1, 2, 3, 4, 5, 256):
        both = (gone[:-shift] * gone[shift:]).mean().item()
        assert abs(both - 0.25) < 0.004


def test_dropout_passes_gradients_where_it_passed_values_and_rests_in_evaluation() -> None:
    layer = Dropout(0.5)
    values = torch.ones(64, 64, requires_grad=True)
    found = layer(values)
    found.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, found.detach())
    assert torch.equal(layer.eval()(values), values)


# Pieces


def test_pieces_hold_every_text_once_and_no_more_tokens_than_asked_for() -> None:
    lengths = [7, 100, 1, 30, 30, 2, 55]
    pieces = cut_by_tokens(lengths, 60)
    assert sorted(text for piece in pieces for text in piece) == list(range(len(lengths)))
    in_order = [lengths[text] for piece in pieces for text in piece]
    assert in_order == sorted(lengths)
    assert all(sum(lengths[text] for text in piece) <= 60 or len(piece) == 1 for piece in pieces)
    assert cut_by_tokens([], 60) == []
