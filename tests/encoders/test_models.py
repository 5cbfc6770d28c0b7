"""Embedder and reranker: pooling, folders that others read, and what is refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from encoders import Embedder, Reranker
from encoders.kinds import detect_kind
from encoders.modules.running import run_modules
from encoders.modules.settings import POOLINGS
from tiny import TEXTS, save_backbone
from zoo import dense, embedder

TEXTS_AND_LONG = [*TEXTS, "the cat sat on the mat " * 60, ""]
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[6], TEXTS[5]), (TEXTS[2], "the dog slept " * 90), ("a", "b")]


# Pooling


def test_pooling_is_the_naive_loop() -> None:
    states = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([5, 2, 1])
    pooled = {
        ours: run_modules([Pooling(4, theirs)], states, lengths)
        for ours, theirs in POOLINGS.items()
    }
    for row, (start, end) in enumerate([(0, 5), (5, 7), (7, 8)]):
        tokens, count = states[start:end], end - start
        places = torch.arange(1.0, count + 1)[:, None]
        expected = {
            "cls": tokens[0],
            "mean": tokens.mean(dim=0),
            "last": tokens[-1],
            "max": tokens.max(dim=0).values,
            "weightedmean": (tokens * places).sum(dim=0) / places.sum(),
            "mean_sqrt_len_tokens": tokens.sum(dim=0) / count**0.5,
        }
        for pooling in POOLINGS:
            assert torch.allclose(pooled[pooling][row], expected[pooling], atol=1e-6), pooling


def test_prompts_left_out_of_pooling_are_the_naive_loop() -> None:
    """Each text with its own prompt, of a text in the middle with none."""
    states = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    lengths, prompts = torch.tensor([4, 2, 3]), torch.tensor([2, 0, 1])
    modules = [Pooling(4, ("cls", "mean"), include_prompt=False)]
    found = run_modules(modules, states, lengths, prompt_lengths=prompts)
    for row, tokens in enumerate([states[2:4], states[4:6], states[7:9]]):
        assert torch.allclose(found[row], torch.cat([tokens[0], tokens.mean(dim=0)]), atol=1e-6)


@pytest.mark.parametrize("unpad", [False, True])
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_on_either_side_makes_no_difference(
    pooling: Any, left: bool, unpad: bool, tiny_bert: Path
) -> None:
    model = Embedder.from_pretrained(tiny_bert, pooling=pooling, unpad_inputs=unpad).eval()
    model.tokenizer.padding_side = "left" if left else "right"
    tokens = model.tokenizer(TEXTS_AND_LONG, truncation=True, padding=True, return_tensors="pt")
    tokens["position_ids"] = (tokens["attention_mask"].cumsum(1) - 1).clamp(min=0)
    given = dict(tokens) if not unpad else {k: v for k, v in tokens.items() if k != "position_ids"}
    with torch.no_grad():
        together = model(**given)
    for text, found in zip(TEXTS_AND_LONG, together, strict=True):
        assert torch.allclose(model.encode([text])[0], found, atol=1e-5)


@pytest.mark.parametrize("unpad", [False, True])
def test_a_text_without_any_token_is_one_token_of_padding(unpad: bool, tiny_bert: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert, unpad_inputs=unpad).eval()
    ids = torch.tensor([[2, 7, 3], [0, 0, 0]])
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask)
        alone = model(input_ids=ids[1:, :1], attention_mask=torch.ones(1, 1, dtype=torch.long))
    assert found.isfinite().all()
    assert torch.allclose(found[1], alone[0], atol=1e-5)


# Embedder


def test_encode_keeps_the_order_whatever_the_batches(tiny_bert: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert)
    together = model.encode(TEXTS_AND_LONG, tokens_per_batch=10**6)
    for at, text in enumerate(TEXTS_AND_LONG):
        assert torch.allclose(model.encode([text])[0], together[at], atol=1e-6)
    assert torch.allclose(model.encode(TEXTS_AND_LONG, tokens_per_batch=20), together, atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(len(together)), atol=1e-5)
    assert model.encode([]).shape == (0, 32)


def test_encode_prompts_and_length(tiny_bert: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert, prompts={"query": "the cat "}, max_length=16)
    assert torch.equal(model.encode(["sat"], prompt_name="query"), model.encode(["the cat sat"]))
    assert torch.equal(model.encode(["sat"], prompt="a dog "), model.encode(["a dog sat"]))
    assert torch.equal(model.encode(["sat"], prompt_name="document"), model.encode(["sat"]))
    long = "the cat sat on the mat and the dog slept on the mat in the capital of France"
    assert torch.equal(model.encode([long], max_length=5), model.encode(["the cat sat"]))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("projection_dim", [None, 8])
@pytest.mark.parametrize("normalize", [True, False])
def test_saved_embedder_gives_the_same_everywhere(
    tiny_bert: Path, tmp_path: Path, pooling: str, projection_dim: int | None, normalize: bool
) -> None:
    model = Embedder.from_pretrained(
        tiny_bert,
        pooling=pooling,
        projection_dim=projection_dim,
        normalize=normalize,
        prompts={"query": "how to "},
        max_length=24,
    )
    model.save_pretrained(tmp_path / "saved")
    expected = model.encode(TEXTS_AND_LONG)
    again = Embedder.from_pretrained(tmp_path / "saved")
    assert (again.pooling, again.normalize, again.max_length) == (pooling, normalize, 24)
    assert again.dimension == (projection_dim or 32)
    assert again.prompts == {"query": "how to "}
    assert torch.equal(again.encode(TEXTS_AND_LONG), expected)

    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert theirs.max_seq_length == 24
    found = theirs.encode(TEXTS_AND_LONG, convert_to_tensor=True)
    assert torch.allclose(found, expected, atol=1e-5)
    asked = theirs.encode(["read a csv"], prompt_name="query", convert_to_tensor=True)
    assert torch.allclose(asked, model.encode(["read a csv"], prompt_name="query"), atol=1e-5)


def test_saved_embedder_through_plain_automodel(tiny_bert: Path, tmp_path: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert)
    model.save_pretrained(tmp_path)
    plain = AutoModel.from_pretrained(tmp_path).eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0], return_tensors="pt")
    mean = plain(**tokens).last_hidden_state[0].mean(dim=0)
    expected = model.encode([TEXTS[0]])[0]
    assert torch.allclose(torch.nn.functional.normalize(mean, dim=0), expected, atol=1e-5)


def test_load_weights_takes_over_everything_trained(tiny_bert: Path, tmp_path: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert, projection_dim=8)
    model.save_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    model.load_weights(tmp_path)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_unused_pooler_is_kept_and_not_trained(tiny_bert: Path, tmp_path: Path) -> None:
    model = Embedder.from_pretrained(tiny_bert)
    loss = model(**model.tokenizer(TEXTS[0], return_tensors="pt")).sum()
    loss.backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
    model.save_pretrained(tmp_path)
    pooler = AutoModel.from_pretrained(tmp_path).pooler.dense.weight
    assert torch.equal(pooler, AutoModel.from_pretrained(tiny_bert).pooler.dense.weight)


def test_half_precision_weights_are_trained_in_fp32(tmp_path: Path) -> None:
    save_backbone(tmp_path)
    AutoModel.from_pretrained(tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in Embedder.from_pretrained(tmp_path).parameters()} == {torch.float32}


def test_package_names_open_installed_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_backbone(tmp_path / "some_models" / "weights" / "bert")
    (tmp_path / "some_models" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = Embedder.from_pretrained("package://some_models/weights/bert")
    assert model.dimension == 32
    assert "some_models" not in sys.modules
    with pytest.raises(ValueError, match="the package some_models has no folder 'nothing'"):
        Embedder.from_pretrained("package://some_models/nothing")
    with pytest.raises(ValueError, match=r"not installed here; pip install not-there$"):
        Embedder.from_pretrained("package://not_there/model")
    for module in ("no_such.package", ".", "", "..x", "a..b"):
        with pytest.raises(
            ValueError, match=r"names the Python package .*, which is not installed"
        ):
            Embedder.from_pretrained(f"package://{module}/model")


# Reranker


def test_whoever_reads_the_configuration_reads_the_weights(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    """A server in a container is another user."""
    dense_layer = dense(32, 8)
    base = embedder(tmp_path / "base", tiny_bert, dense_layer)
    adapted = Embedder.from_pretrained(base)
    adapted.add_lora(str(base), r=2, alpha=4)
    adapted.save_pretrained(tmp_path / "embedder")
    Reranker.from_pretrained(tiny_classifier).save_pretrained(tmp_path / "reranker")
    for name, count in (("embedder", 3), ("reranker", 1)):
        files = list((tmp_path / name).rglob("*.safetensors"))
        assert len(files) == count
        mode = (tmp_path / name / "config.json").stat().st_mode
        assert mode & 0o044 and {file.stat().st_mode for file in files} == {mode}


def test_saved_reranker_gives_the_same_everywhere(tiny_classifier: Path, tmp_path: Path) -> None:
    model = Reranker.from_pretrained(tiny_classifier, max_length=24)
    model.save_pretrained(tmp_path)
    raw, scores = model.score(PAIRS, raw=True), model.score(PAIRS)
    assert torch.allclose(raw.sigmoid(), scores)
    again = Reranker.from_pretrained(tmp_path)
    assert again.max_length == 24
    assert torch.equal(again.score(PAIRS), scores)

    theirs = CrossEncoder(str(tmp_path), device="cpu")
    assert torch.allclose(theirs.predict(PAIRS, convert_to_tensor=True), scores, atol=1e-5)

    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path)(*PAIRS[0], return_tensors="pt")
    assert torch.allclose(plain(**tokens).logits[0], raw[:1], atol=1e-5)


def test_score_keeps_the_order_whatever_the_batches(tiny_classifier: Path) -> None:
    model = Reranker.from_pretrained(tiny_classifier)
    together = model.score(PAIRS, tokens_per_batch=10**6)
    alone = torch.cat([model.score([pair]) for pair in PAIRS])
    assert torch.allclose(together, alone, atol=1e-6)
    assert model.score([]).shape == (0,)


def test_a_backbone_gets_a_new_head(tiny_bert: Path) -> None:
    torch.manual_seed(1)
    model = Reranker.from_pretrained(tiny_bert)
    assert model.backbone.config.num_labels == 1
    assert model.score(PAIRS).shape == (4,)


def test_reranker_prompts_survive(tiny_classifier: Path, tmp_path: Path) -> None:
    model = Reranker.from_pretrained(tiny_classifier, prompts={"query": "how to "})
    model.save_pretrained(tmp_path)
    plain = Reranker.from_pretrained(tiny_classifier)
    expected = plain.score([("how to read", "a csv")])
    assert torch.equal(Reranker.from_pretrained(tmp_path).score([("read", "a csv")]), expected)


# What is refused


def test_a_folder_with_half_of_the_weights(tiny_bert: Path, tmp_path: Path) -> None:
    save_backbone(tmp_path, num_hidden_layers=1)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(ValueError, match="lacks 16 of the backbone's weights"):
        Embedder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="lacks 16 of the backbone's weights"):
        Reranker.from_pretrained(tmp_path)


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the Hub cannot be reached"):
        Embedder.from_pretrained("organisation/name")
    with pytest.raises(ValueError, match="neither a folder here nor a name on the Hub"):
        Embedder.from_pretrained("/no/such/folder")
    with pytest.raises(ValueError, match="neither a folder here nor a name on the Hub"):
        Embedder.from_pretrained("~nobody-of-this-name/x")
    with pytest.raises(ValueError, match=r"holds no model \(no config.json"):
        Embedder.from_pretrained(tmp_path)


def test_impossible_settings(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes at most 128"):
        Embedder.from_pretrained(tiny_bert, max_length=129)
    with pytest.raises(ValueError, match="pooling: 'sum' is not one of cls, mean, last"):
        Embedder.from_pretrained(tiny_bert, pooling="sum")
    Embedder.from_pretrained(tiny_bert, projection_dim=8).save_pretrained(tmp_path / "projected")
    with pytest.raises(ValueError, match="has a projection already"):
        Embedder.from_pretrained(tmp_path / "projected", projection_dim=4)


def test_a_folder_without_a_vocabulary_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    """transformers makes a tokenizer of special tokens only, to which every text is unknown."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no tokenizer"):
        Embedder.from_pretrained(folder)


def test_damaged_weights_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be opened"):
        Embedder.from_pretrained(folder)


def test_a_reranker_gives_an_embedder_but_says_so(
    tiny_classifier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert detect_kind(tiny_classifier) == "reranker"
    assert Embedder.from_pretrained(tiny_classifier).encode(["a"]).shape == (1, 32)
    assert "is a reranker: its scoring head is left out" in caplog.text
