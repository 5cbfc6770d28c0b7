"""scripts/evaluate.py from the command line's point of view."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from encoders import Embedder
from evaluation import per_query, read_beir, retrieve
from scripts.evaluate import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve documents, each the answer to one query; Chinese and English."""
    folder = tmp_path_factory.mktemp("heldout")
    words = [
        "csv",
        "cat",
        "Paris",
        "fever",
        "python",
        "dog",
        "天气",
        "感冒",
        "北京",
        "网络",
        "猫",
        "药",
    ]
    corpus = [{"_id": f"d{n}", "text": f"{word} 文档 {n}"} for n, word in enumerate(words)]
    queries = [{"_id": f"q{n}", "text": f"{word}?"} for n, word in enumerate(words)]
    (folder / "qrels").mkdir()
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(len(words)))
    (folder / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    return folder


def test_all_four_models(
    heldout: Path,
    tiny_bert: Path,
    tiny_classifier: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "new" / "figures.json"
    embedder, reranker = str(tiny_bert), str(tiny_classifier)
    flags = ["--data", str(heldout), "--model", embedder, "--baseline", embedder]
    flags += ["--reranker", reranker, "--reranker_baseline", reranker]
    flags += ["--rerank_top_k", "5", "--max_rerank_queries", "6", "--output", str(output)]
    assert main(flags) == 0
    report = json.loads(output.read_text(encoding="utf-8"))
    data = read_beir(heldout)
    found = retrieve(Embedder.from_pretrained(embedder), data, 10)
    assert report["embedder"]["queries"] == report["embedder"]["documents"] == 12
    assert report["reranker"]["queries"] == 6
    for metric, values in per_query(found, data.qrels).items():
        assert report["embedder"]["fine-tuned"][metric] == pytest.approx(values.mean())
        assert report["embedder"]["difference to base"][metric] == [0.0, 0.0, 0.0]
        assert report["reranker"]["difference to base"][metric] == [0.0, 0.0, 0.0]
    for metric, values in per_query(found, data.sample(6).qrels).items():
        assert report["reranker"]["first stage"][metric] == pytest.approx(values.mean())
    printed = capsys.readouterr().out
    assert "Embedder: 12 queries, 12 documents" in printed
    assert "Reranker: 6 queries, 12 documents" in printed
    assert "+0.000 [+0.000, +0.000]" in printed


def test_one_model_alone(
    heldout: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(heldout), "--model", str(tiny_bert), "--max_queries", "4"]) == 0
    printed = capsys.readouterr().out
    assert "Embedder: 4 queries" in printed
    assert "NDCG@10" in printed and "Recall@10" in printed and "MRR@10" in printed
    assert "difference" not in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "x"], "required: --data"),
        (["--data", "x", "--mod", "x"], "required: --model"),
        (["--data", "x", "--model", "x", "--max_queries", "0"], "--max_queries must be at least 1"),
        (["--data", "x", "--model", "x", "--reranker_baseline", "x"], "needs --reranker"),
    ],
)
def test_a_wrong_flag_is_named(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(flags)
    assert exit_code.value.code == 2
    assert message in capsys.readouterr().err


def test_a_mistake_in_the_data_is_one_line_and_exit_code_2() -> None:
    script = [sys.executable, "scripts/evaluate.py", "--data", "nowhere", "--model", "x"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere/corpus.jsonl does not exist")
    assert done.stderr.count("\n") == 1
