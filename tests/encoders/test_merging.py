"""Merged weights against a loop, closed forms, and the models at both ends."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from encoders import Embedder, Reranker
from encoders.weights.merging import depths, merge_weights, merge_with_base

State = dict[str, Tensor]


def random_state(seed: int) -> State:
    made = torch.Generator().manual_seed(seed)
    names = ["embed.weight", "layer.0.weight", "layer.1.weight", "layer.2.weight", "head.weight"]
    return {name: torch.randn(3, 4, generator=made) for name in names} | {"ids": torch.arange(4)}


def test_linear_is_the_weighted_sum() -> None:
    states, shares = [random_state(seed) for seed in range(3)], [0.5, 0.3, 0.2]
    merged = merge_weights(states, shares)
    for name in ("embed.weight", "layer.1.weight", "head.weight"):
        for row in range(3):
            for column in range(4):
                cells = [float(state[name][row, column]) for state in states]
                expected = sum(share * cell for share, cell in zip(shares, cells, strict=True))
                assert float(merged[name][row, column]) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(merged["ids"], states[0]["ids"])


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_ends_are_the_models(method: str) -> None:
    one, other = random_state(0), random_state(1)
    for shares, expected in (([1, 0], one), ([0, 1], other)):
        merged = merge_weights([one, other], shares, method)  # type: ignore[arg-type]
        for name, weight in expected.items():
            torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-7)


def test_slerp_walks_the_circle_at_constant_speed() -> None:
    """Between unit vectors 60 degrees apart, a share of 1/4 is 15 degrees on."""
    at = [math.radians(angle) for angle in (0, 60, 15)]
    one, other, expected = (torch.tensor([math.cos(a), math.sin(a)]) for a in at)
    merged = merge_weights([{"w": one}, {"w": other}], [0.75, 0.25], "slerp")
    torch.testing.assert_close(merged["w"], expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "other", [torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0]), torch.zeros(2)]
)
def test_slerp_of_one_line_is_linear(other: Tensor) -> None:
    one = torch.tensor([1.0, 0.0])
    merged = merge_weights([{"w": one}, {"w": other}], [0.5, 0.5], "slerp")
    torch.testing.assert_close(merged["w"], (one + other) / 2)


def test_shares_over_the_depth() -> None:
    one, other = random_state(0), random_state(1)
    merged = merge_weights([one, other], [[1, 0], [0, 1]])
    placed = {"embed": 0, "layer.0": 0.25, "layer.1": 0.5, "layer.2": 0.75, "head": 1}
    assert {name.removesuffix(".weight"): at for name, at in depths(list(one)).items()} == (
        placed | {"ids": 1}
    )
    for name, share in placed.items():
        expected = (1 - share) * one[f"{name}.weight"] + share * other[f"{name}.weight"]
        torch.testing.assert_close(merged[f"{name}.weight"], expected)


def test_depths_of_a_real_model(tiny_bert: Path) -> None:
    placed = depths(list(Embedder.from_pretrained(tiny_bert).state_dict()))
    layers = [at for name, at in placed.items() if "embeddings" in name]
    assert set(layers) == {0.0}
    assert max(placed.values()) <= 1
    assert sorted(placed.values()) == list(placed.values())


def test_a_projection_follows_the_layers(tiny_bert: Path) -> None:
    """Its number is that of a module, not of a layer."""
    models = [Embedder.from_pretrained(tiny_bert, projection_dim=4) for _ in range(2)]
    one, other = (model.state_dict() for model in models)
    merged = merge_weights([one, other], [[1, 0], [0, 1]])
    assert not torch.equal(one["head.1.linear.weight"], other["head.1.linear.weight"])
    assert torch.equal(merged["head.1.linear.weight"], other["head.1.linear.weight"])


def test_what_does_not_fit_is_named() -> None:
    one = random_state(0)
    with pytest.raises(ValueError, match=r"head\.weight differs in shape: \[3, 4\].* \[2, 4\]"):
        merge_weights([one, one | {"head.weight": torch.ones(2, 4)}], [0.5, 0.5])
    less = {name: weight for name, weight in one.items() if name != "head.weight"}
    with pytest.raises(ValueError, match="no such weights in the first model"):
        merge_weights([less, one], [0.5, 0.5])
    with pytest.raises(ValueError, match="ids holds integers that differ in model 2"):
        merge_weights([one, one | {"ids": torch.ones(4, dtype=torch.int64)}], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"must add up to 1 in each layer, got 0\.9"):
        merge_weights([one, one], [0.5, 0.4])
    with pytest.raises(ValueError, match="2 are given for 3 models"):
        merge_weights([one] * 3, [0.5, 0.5])
    with pytest.raises(ValueError, match="slerp merges two models, got 3"):
        merge_weights([one] * 3, [0.5, 0.3, 0.2], "slerp")
    with pytest.raises(ValueError, match="of one length"):
        merge_weights([one, one], [[1, 0], [0, 0.5, 1]])


def test_a_new_head_stays() -> None:
    one, other = random_state(0), random_state(1)
    less = {name: weight for name, weight in one.items() if name != "head.weight"}
    for merged in (
        merge_weights([less, other], [0.5, 0.5], kept={"head.weight"}),
        merge_with_base(other, less, 0.5, kept={"head.weight"}),
    ):
        assert torch.equal(merged["head.weight"], other["head.weight"])
        expected = (one["embed.weight"] + other["embed.weight"]) / 2
        torch.testing.assert_close(merged["embed.weight"], expected)


def test_scaled_adapters_are_the_merged_weights(tiny_classifier: Path, tmp_path: Path) -> None:
    """Saved with B scaled = the plain average of the base and the model that was saved before."""
    pytest.importorskip("peft")
    torch.manual_seed(0)
    model = Reranker.from_pretrained(tiny_classifier)
    base = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.add_lora("base", r=2, alpha=4, classifier=True)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "tuned")
    tuned = Reranker.from_pretrained(tmp_path / "tuned").state_dict()
    model.load_state_dict(merge_with_base(model.state_dict(), base, 0.3))
    model.save_pretrained(tmp_path / "merged")
    merged = Reranker.from_pretrained(tmp_path / "merged").state_dict()
    expected = merge_weights([base, tuned], [0.7, 0.3])
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-6)
