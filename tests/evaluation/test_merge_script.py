"""scripts/merge.py: what it writes, what it chooses, what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from encoders import Embedder, Reranker
from evaluation.data.from_rows import retrieval_from_groups
from evaluation.measure import Evaluator
from evaluation.search.distributed import InferenceSettings
from loaders import ReadOptions, load_rows
from scripts.merge import main
from tiny import TEXTS, save_backbone


@pytest.fixture(scope="module")
def tuned(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with other weights."""
    model = Embedder.from_pretrained(tiny_bert)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    folder = tmp_path_factory.mktemp("tuned") / "model"
    model.save_pretrained(folder)
    return folder


def merge(output: Path, *words: object) -> int:
    return main([*map(str, words), "--output_dir", str(output)])


def test_half_of_each(
    tiny_bert: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "merged"
    assert merge(output, "--models", tiny_bert, tuned, "--weights", 0.25, 0.75) == 0
    assert "(weights 0.25 0.75)" in capsys.readouterr().out
    one, other, merged = (
        load_file(folder / "model.safetensors") for folder in (tiny_bert, tuned, output)
    )
    for name, weight in merged.items():
        torch.testing.assert_close(weight, 0.25 * one[name] + 0.75 * other[name])
    ours = Embedder.from_pretrained(output).encode(TEXTS)
    theirs = SentenceTransformer(str(output), device="cpu").encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert not output.with_name("merged.partial").exists()


def test_by_layer(tiny_bert: Path, tuned: Path, tmp_path: Path) -> None:
    output = tmp_path / "merged"
    assert merge(output, "--models", tiny_bert, tuned, "--weights", "[[1, 0], [0, 1]]") == 0
    one, other, merged = (
        load_file(folder / "model.safetensors") for folder in (tiny_bert, tuned, output)
    )
    embeddings = "embeddings.word_embeddings.weight"
    torch.testing.assert_close(merged[embeddings], one[embeddings])
    last = "encoder.layer.1.output.dense.weight"  # of 2 layers: at 2/3 of the depth
    torch.testing.assert_close(merged[last], one[last] / 3 + 2 * other[last] / 3)


def test_a_new_head_stays_as_trained(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    output = tmp_path / "merged"
    assert merge(output, "--models", tiny_bert, tiny_classifier, "--weights", 0.5, 0.5) == 0
    tuned, merged = (Reranker.from_pretrained(f).state_dict() for f in (tiny_classifier, output))
    assert torch.equal(merged["backbone.classifier.weight"], tuned["backbone.classifier.weight"])
    body = "backbone.bert.encoder.layer.0.output.dense.weight"
    base = Embedder.from_pretrained(tiny_bert).state_dict()[body.replace("bert.", "", 1)]
    torch.testing.assert_close(merged[body], (base + tuned[body]) / 2)


def test_weights_are_found(
    tiny_bert: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.dumps({"query": text[:12], "pos_doc": text}) for text in TEXTS]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    given = ["--models", tiny_bert, tuned, "--data", data, "--guard_data", data]
    assert merge(tmp_path / "merged", *given) == 0
    told = capsys.readouterr().out
    for shares in ("1 0", "0.75 0.25", "0.5 0.5", "0.25 0.75", "0 1"):
        assert shares in told
    assert "guard" in told
    # Each line is what the merge by these weights is worth by itself.
    lines = {tuple(cell.strip() for cell in line.split("│")[1:3]) for line in told.splitlines()}
    for shares in ("1 0", "0.5 0.5", "0 1"):
        output = tmp_path / shares
        assert merge(output, "--models", tiny_bert, tuned, "--weights", *shares.split()) == 0
        groups = load_rows([str(data)], "candidate_group", ReadOptions())
        by = Evaluator(retrieval_from_groups(groups, None, 0.5), ["ndcg@10"], InferenceSettings())
        value = by.main_value(by.evaluate(Embedder.from_pretrained(output)))
        assert (shares, f"{value:.4f}") in lines
    values = {value for _, value in (line for line in lines if len(line) == 2)}
    assert len(values) > 2


def test_a_model_alone_is_measured_and_saved_with_its_own_pooling_and_prompts(
    tiny_bert: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a merge is told to be worth is what the saved model is worth."""
    other = Embedder.from_pretrained(tuned, pooling="cls")
    other.replace_prompts("an instruction of many words: ", None)
    other.save_pretrained(tmp_path / "other")
    rows = [json.dumps({"query": text[:12], "pos_doc": text}) for text in TEXTS]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    models = ["--models", tiny_bert, tmp_path / "other"]
    assert merge(tmp_path / "merged", *models, "--data", data) == 0
    told = capsys.readouterr().out
    lines = {tuple(cell.strip() for cell in line.split("│")[1:3]) for line in told.splitlines()}
    groups = load_rows([str(data)], "candidate_group", ReadOptions())
    by = Evaluator(retrieval_from_groups(groups, None, 0.5), ["ndcg@10"], InferenceSettings())
    for shares, alone in (("1 0", tiny_bert), ("0 1", tmp_path / "other"), ("0.5 0.5", None)):
        output = tmp_path / shares
        assert merge(output, *models, "--weights", *shares.split()) == 0
        value = by.main_value(by.evaluate(Embedder.from_pretrained(output)))
        assert (shares, f"{value:.4f}") in lines
        if alone is not None:
            assert value == by.main_value(by.evaluate(Embedder.from_pretrained(alone)))
    # The other is measured as itself after the merges, too.
    chosen = told.split("(weights ")[1].split(")")[0]
    first = json.loads((tmp_path / "merged" / "1_Pooling" / "config.json").read_text())
    assert first["pooling_mode_mean_tokens"] == (chosen == "1 0")


def test_mistakes(
    tiny_bert: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*words: object) -> str:
        assert merge(tmp_path / "merged", *words) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert not (tmp_path / "merged").exists()
        return told

    both = ["--models", tiny_bert, tuned]
    assert "give two or more" in refused("--models", tiny_bert, "--weights", 1)
    assert "add up to 1" in refused(*both, "--weights", 0.5, 0.4)
    assert "1 are given for 2 models" in refused(*both, "--weights", 1)
    assert "give them, or data" in refused(*both)
    assert "leave it or weights out" in refused(*both, "--weights", 0.5, 0.5, "--data", tuned)
    wide = save_backbone(tmp_path / "wide", hidden_size=64)
    assert "differs in shape" in refused("--models", wide, tuned, "--weights", 0.5, 0.5)
    assert merge(tuned, *both, "--weights", 0.5, 0.5) == 2
    assert "already exists" in capsys.readouterr().err
