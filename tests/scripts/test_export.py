"""scripts/export.py: what it writes, what it refuses."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from encoders import Embedder, Reranker
from encoders.export.onnx_backbone import ONNX_FILE
from scripts.export import main
from scripts.train import main as train
from tiny import TEXTS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Groups, which an embedder searches and a reranker orders."""
    lines = []
    for at, text in enumerate(TEXTS):
        others = [TEXTS[(at + n) % len(TEXTS)] for n in (1, 2, 3)]
        lines.append(json.dumps({"query": text[:20], "pos": [text], "neg": others}))
    (tmp_path / "groups.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "groups.jsonl"


def export(model: Path, output: Path, data: Path, *flags: str) -> int:
    given = ["--model", str(model), "--output_dir", str(output), "--data", str(data), *flags]
    return main(given)


def test_an_embedder_is_written_and_told_of(
    tmp_path: Path, tiny_bert: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "graph"
    assert export(tiny_bert, output, data) == 0
    told = capsys.readouterr().out
    assert "ndcg@10" in told
    assert "least agreement on 10 documents: 1.000000" in told
    assert (output / ONNX_FILE).is_file()
    assert not output.with_name("graph.partial").exists()
    # Not twice, and not over another.
    assert export(output, tmp_path / "again", data) == 2
    assert "is an ONNX model already" in capsys.readouterr().err
    assert export(tiny_bert, output, data) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_score_in_eight_bits_does_not_depend_on_others(
    tmp_path: Path, tiny_classifier: Path, data: Path
) -> None:
    flags = ("--format", "int8", "--max_drop", "1")
    assert export(tiny_classifier, tmp_path / "graph", data, *flags) == 0
    assert (tmp_path / "graph" / ONNX_FILE).is_file()
    other = Reranker.from_pretrained(tmp_path / "graph")
    pairs = [(" ".join(TEXTS[:n]), text) for n in (1, 2, 5, 9) for text in TEXTS]
    alone = torch.cat([other.score([pair], raw=True) for pair in pairs])
    torch.testing.assert_close(other.score(pairs, raw=True), alone, atol=1e-4, rtol=0)
    wanted = Reranker.from_pretrained(tiny_classifier).score(pairs, raw=True)
    assert (alone - wanted).abs().max() < 0.1 * wanted.std() + 0.05


def test_what_loses_too_much_is_not_written(
    tmp_path: Path, tiny_bert: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A bound that no model can meet stands for a model that has lost much.
    assert export(tiny_bert, tmp_path / "graph", data, "--format", "fp16", "--max_drop", "-1") == 1
    error = capsys.readouterr().err
    assert "ndcg@10 falls by" in error
    assert "nothing is written" in error
    assert not list(tmp_path.glob("graph*"))


def test_it_is_not_trained(
    tmp_path: Path, tiny_bert: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = tmp_path / "graph"
    shutil.copytree(tiny_bert, graph, ignore=shutil.ignore_patterns("*.safetensors"))
    (graph / ONNX_FILE).parent.mkdir()
    (graph / ONNX_FILE).write_bytes(b"")
    recipe = {
        "objective": "contrastive",
        "model_name_or_path": str(tmp_path / "graph"),
        "train_file": str(data),
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(SystemExit):
        train(["--config", str(tmp_path / "recipe.json")])
    assert "is an ONNX model, which cannot be trained" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_half_precision(
    tmp_path: Path, tiny_bert: Path, data: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert export(tiny_bert, tmp_path / "half", data, "--format", kind) == 0
    told = capsys.readouterr().out
    assert float(told.partition("on 10 documents: ")[2].split()[0]) > 0.9995
    weights = load_file(tmp_path / "half" / "model.safetensors")
    assert {str(weight.dtype) for weight in weights.values()} == {
        {"fp16": "torch.float16", "bf16": "torch.bfloat16"}[kind]
    }
    ours = Embedder.from_pretrained(tmp_path / "half").encode(TEXTS)
    assert ours.dtype == torch.float32
    theirs = torch.tensor(SentenceTransformer(str(tmp_path / "half"), device="cpu").encode(TEXTS))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
