"""LoRA: adapters beside a frozen backbone, merged when saved, exact when resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, GPT2Config

from encoders import Embedder, Reranker
from encoders.opening.bf16_weights import store_in_bf16
from encoders.weights import lora
from runs import TOPICS, assert_same_weights, losses, train, weights, write_format
from tiny import save_backbone, save_classifier
from trainers import OBJECTIVES, TandemArguments
from trainers.config import arguments

# peft asks transformers for what it has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

TEXTS = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]
PAIRS = [(TEXTS[0], text) for text in TEXTS]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        "embedder": save_backbone(folder / "embedder", TEXTS),
        "reranker": save_classifier(folder / "reranker", TEXTS),
    }


def moved(model: Embedder | Reranker) -> None:
    """Give B, which is 0 at first, and the heads some values."""
    random = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.requires_grad and "lora_A" not in name:
            noise = torch.randn(weight.shape, generator=random)
            weight.data = weight.data + 0.1 * noise


def test_a_new_adapter_changes_nothing_and_only_it_is_trained(bases: dict[str, Path]) -> None:
    model = Embedder.from_pretrained(bases["embedder"], projection_dim=8)
    before = model.encode(TEXTS)
    model.add_lora("base", r=2, alpha=4)
    torch.testing.assert_close(model.encode(TEXTS), before, atol=0, rtol=0)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {
        "head.1.linear.weight",
        "head.1.linear.bias",
    }
    assert len([name for name in trained if "lora_A" in name]) == 2 * 6  # layers, linear layers


def test_an_embedder_is_merged_when_it_is_saved(bases: dict[str, Path], tmp_path: Path) -> None:
    model = Embedder.from_pretrained(bases["embedder"])
    before = model.encode(TEXTS)
    model.add_lora(str(bases["embedder"]), r=2, alpha=6, target_modules=["query", "value"])
    moved(model)
    adapted = model.encode(TEXTS)
    assert (adapted - before).abs().max() > 1e-3
    model.save_pretrained(tmp_path / "saved")
    merged = Embedder.from_pretrained(tmp_path / "saved").encode(TEXTS)
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=0)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    torch.testing.assert_close(torch.tensor(theirs), adapted, atol=1e-5, rtol=0)

    # The adapter alone, by peft on the base.
    base = AutoModel.from_pretrained(bases["embedder"])
    peft = PeftModel.from_pretrained(base, tmp_path / "saved" / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(bases["embedder"])
    batch = tokenizer(TEXTS[1], return_tensors="pt")
    states = peft(**batch).last_hidden_state.mean(dim=1)
    found = torch.nn.functional.normalize(states, dim=-1)[0]
    torch.testing.assert_close(found.detach(), adapted[1], atol=1e-5, rtol=0)
    config = json.loads((tmp_path / "saved" / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 6)
    assert config["base_model_name_or_path"] == str(bases["embedder"])


def test_a_rerankers_head_goes_with_the_adapter(bases: dict[str, Path], tmp_path: Path) -> None:
    model = Reranker.from_pretrained(bases["reranker"])
    model.add_lora(str(bases["reranker"]), r=2, alpha=4, classifier=True)
    moved(model)
    adapted = model.score(PAIRS, raw=True)
    model.save_pretrained(tmp_path / "saved")
    merged = Reranker.from_pretrained(tmp_path / "saved").score(PAIRS, raw=True)
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=0)
    theirs = CrossEncoder(str(tmp_path / "saved"), device="cpu").predict(PAIRS)
    torch.testing.assert_close(torch.tensor(theirs), adapted.sigmoid(), atol=1e-5, rtol=0)
    base = AutoModelForSequenceClassification.from_pretrained(bases["reranker"], num_labels=1)
    peft = PeftModel.from_pretrained(base, tmp_path / "saved" / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(bases["reranker"])
    found = peft(**tokenizer(*PAIRS[1], return_tensors="pt")).logits[0, 0]
    torch.testing.assert_close(found.detach(), adapted[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", ["contrastive", "weighted_mse", "listwise"])
def test_a_run_with_adapters_learns_and_resumes_bit_identical(
    objective: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    kind = OBJECTIVES[objective].model
    formats = {"contrastive": "pairs", "weighted_mse": "scored"}
    settings: dict[str, Any] = {
        "objective": objective,
        "model_name_or_path": bases[kind],
        "train_file": write_format(formats.get(objective, "groups"), tmp_path),
        "lora_r": 4,
        "lora_dropout": 0.1,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 30,
        "save_strategy": "steps",
        "save_steps": 20,
    }
    whole = train(tmp_path / "whole", **settings)
    logged = losses(whole)
    if kind == "embedder":  # a random frozen backbone is no ground to learn pairs on
        assert sum(logged[-8:]) < 0.9 * sum(logged[:8])
    start = str(whole / "checkpoint-20")
    resumed = train(tmp_path / "resumed", **settings, resume_from_checkpoint=start)
    assert_same_weights(whole, resumed)
    adapters = [
        load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (whole, resumed)
    ]
    assert adapters[0].keys() == adapters[1].keys()
    for name, weight in adapters[0].items():
        assert weight.equal(adapters[1][name]), name
    # What has no adapter is what it was.
    base, tuned = weights(bases[kind]), weights(whole)
    for name in base:
        if "embeddings" in name or "LayerNorm" in name or name.endswith("key.bias"):
            assert base[name].equal(tuned[name]), name
    assert any(not base[name].equal(tuned[name]) for name in base if "query.weight" in name)


@pytest.fixture(scope="module")
def short_bases(
    bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The same models with weights that 16 bits hold, but for one matrix."""
    found = {}
    for kind, folder in bases.items():
        found[kind] = tmp_path_factory.mktemp("short") / kind
        shutil.copytree(folder, found[kind])
        rounded = {name: weight.bfloat16().float() for name, weight in weights(folder).items()}
        for name, weight in rounded.items():
            if name.endswith("layer.1.output.dense.weight"):
                weight += 2**-20
        save_file(rounded, found[kind] / "model.safetensors", metadata={"format": "pt"})
    return found


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_frozen_matrices_held_in_bf16_change_nothing(
    kind: str, short_bases: dict[str, Path], tmp_path: Path
) -> None:
    """Values and gradients under autocast, values without it, and what is saved, bit by bit."""
    found = []
    for held in (False, True):
        torch.manual_seed(0)  # A is drawn
        base, classifier = short_bases[kind], kind == "reranker"
        model = Reranker.from_pretrained(base) if classifier else Embedder.from_pretrained(base)
        settings: dict[str, Any] = {"r": 2, "alpha": 4, "classifier": classifier}
        model.add_lora("base", frozen_in_bf16=held, **settings)
        moved(model)
        texts = [TEXTS[:6], TEXTS[6:12]] if classifier else [TEXTS[:6]]
        batch = model.tokenizer(*texts, padding=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            values = model(**batch)
        values.float().square().sum().backward()
        with torch.inference_mode():
            exact = model.eval()(**batch)
        model.save_pretrained(tmp_path / str(held))
        gradients = [w.grad for w in model.parameters() if w.grad is not None]
        assert len(gradients) > 20
        found.append([values, exact, *gradients, *weights(tmp_path / str(held)).values()])
        matrices = {
            name: weight.dtype
            for name, weight in model.named_parameters()
            if weight.dim() == 2 and not weight.requires_grad and "embeddings" not in name
        }
        short = {name for name, dtype in matrices.items() if dtype == torch.bfloat16}
        (long,) = [name for name in matrices if "layer.1.output.dense" in name]
        assert short == (matrices.keys() - {long} if held else set())
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_a_run_in_bf16_holds_them_so_and_resumes(
    short_bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "multiplies_in_bf16", lambda: True)
    settings: dict[str, Any] = {
        "objective": "contrastive",
        "model_name_or_path": short_bases["embedder"],
        "train_file": write_format("pairs", tmp_path),
        "eval_file": write_format("pairs", tmp_path),
        "bf16": True,
        "lora_r": 4,
        "lora_dropout": 0.1,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "merge_with_base": 0.3,
    }
    held: list[nn.Module] = []

    def noted(model: nn.Module) -> None:
        held.append(model)
        store_in_bf16(model)

    with monkeypatch.context() as patch:
        patch.setattr(lora, "store_in_bf16", noted)
        whole = train(tmp_path / "whole", **settings)
        start = str(whole / "checkpoint-2")
        assert_same_weights(
            whole, train(tmp_path / "resumed", **settings, resume_from_checkpoint=start)
        )
        assert len(held) == 2
        patch.setattr(lora, "store_in_bf16", lambda model: None)
        assert_same_weights(whole, train(tmp_path / "fp32", **settings))
    assert not any(weight.dtype == torch.bfloat16 for weight in weights(whole).values())


def test_a_checkpoint_without_an_adapter_is_refused(
    bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = {
        "objective": "contrastive",
        "model_name_or_path": bases["embedder"],
        "train_file": write_format("pairs", tmp_path),
        "max_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
    }
    whole = train(tmp_path / "whole", **settings)
    start = str(whole / "checkpoint-1")
    with pytest.raises(SystemExit):
        train(tmp_path / "other", **settings, lora_r=2, resume_from_checkpoint=start)
    assert "checkpoint-1 is of a run without lora_r; leave lora_r out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_alpha": 8}, "lora_alpha: needs lora_r"),
        ({"lora_target_modules": ["query"]}, "lora_target_modules: needs lora_r"),
        ({"lora_r": 0}, "lora_r: must be at least 1, got 0"),
        ({"lora_r": 4, "lora_dropout": 1.0}, "lora_dropout: must be in"),
        ({"lora_r": 4, "lora_target_modules": []}, "lora_target_modules: is empty"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {"objective": "bce", "model_name_or_path": "x", "train_file": "y"}
    with pytest.raises(ValueError, match=message):
        TandemArguments(**(given | {"output_dir": str(tmp_path)} | settings))


def test_layers_that_do_not_exist_are_named(bases: dict[str, Path]) -> None:
    model = Embedder.from_pretrained(bases["embedder"])
    with pytest.raises(
        ValueError, match=r"'q_proj' is not a linear layer.*dense, key, query, value"
    ):
        model.add_lora("base", r=2, alpha=4, target_modules=["query", "q_proj"])


def test_a_model_without_linear_layers_is_refused() -> None:
    gpt2 = AutoModel.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(ValueError, match=r"lora_r: gpt2 has no layer of the class nn.Linear"):
        lora.add_lora(gpt2, "base", r=2, alpha=4)
