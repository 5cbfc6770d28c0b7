"""Matrices stored in bf16 are those that bf16 holds without loss, and change nothing."""

from pathlib import Path

import pytest
import torch
from torch import nn

from encoders import Embedder
from encoders.opening.bf16_weights import BF16Linear, place_for_inference, store_in_bf16
from encoders.opening.model_digest import model_digest
from runs import TEXTS
from tiny import save_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model whose weights are all short, but for one matrix and the embeddings."""
    model = Embedder.from_pretrained(save_backbone(tmp_path_factory.mktemp("m"), TEXTS))
    for name, weight in model.named_parameters():
        if "embeddings" not in name:
            weight.data = weight.data.bfloat16().float()
        if name.endswith("layer.0.output.dense.weight"):
            weight.data += 2**-20
    model.save_pretrained(folder := tmp_path_factory.mktemp("short"))
    return folder


@pytest.fixture
def model(folder: Path) -> Embedder:
    return Embedder.from_pretrained(folder)


@pytest.mark.parametrize("bf16", [False, True])
def test_what_is_computed_stays_and_so_does_the_digest(
    folder: Path, model: Embedder, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.backbone.bf16_is_fast", lambda device: True)
    held = Embedder.from_pretrained(folder)
    store_in_bf16(held, trainable=True)
    types = {name: type(module) for name, module in held.named_modules()}
    (plain,) = [name for name, kind in types.items() if kind is nn.Linear]
    assert plain.endswith("layer.0.output.dense")
    assert len([name for name, kind in types.items() if kind is BF16Linear]) == 12
    assert torch.equal(held.encode(TEXTS, bf16=bf16), model.encode(TEXTS, bf16=bf16))
    assert model_digest(held) == model_digest(model)
    assert held.state_dict()["backbone.pooler.dense.weight"].dtype == torch.bfloat16


def test_a_cpu_keeps_them_and_other_devices_do_not(folder: Path) -> None:
    kept = place_for_inference(Embedder.from_pretrained(folder), "cpu")
    assert {weight.dtype for weight in kept.parameters()} == {torch.float32}
    moved = place_for_inference(Embedder.from_pretrained(folder), torch.device("meta"))
    weights = [weight for weight in moved.parameters() if weight.dtype == torch.bfloat16]
    assert len(weights) == 12 and all(weight.is_meta for weight in weights)


def test_nothing_is_rounded_in_silence(folder: Path, model: Embedder) -> None:
    held = Embedder.from_pretrained(folder)
    store_in_bf16(held, trainable=True)
    held.load_state_dict(model.state_dict())
    longer = {name: weight + 2**-20 for name, weight in model.state_dict().items()}
    with pytest.raises(ValueError, match="is stored in bf16, which would round what it is given"):
        held.load_state_dict(longer)
