"""scripts/score_with_teacher.py: scores of a reranker or an embedder, for all rows."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from encoders import Embedder, Reranker
from loaders import ReadOptions, load_rows
from scripts.score_with_teacher import main
from tiny import TEXTS


def write(path: Path, rows: Iterable[object]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def groups(count: int) -> list[dict[str, Any]]:
    """Rows of one to three documents, some of which repeat; every third has a prompt."""
    rows = []
    for number in range(count):
        texts = [f"{TEXTS[(number + at) % 10]} {(number + at) // 2}" for at in range(3)]
        row = {"query": f"问 {number % 50}", "pos": texts[:1], "neg": texts[1 : 1 + number % 3]}
        rows.append(row | ({"prompt": "find: "} if number % 3 == 0 else {}))
    return rows


def command(data: Path, output: Path, model: Path, *flags: object) -> list[str]:
    cache = ["--cache_dir", str(output.parent / "cache")]
    files = ["--input", str(data), "--output", str(output), "--model", str(model)]
    return [*files, *cache, *map(str, flags)]


def asked(row: dict[str, Any], prompt: str = "") -> str:
    text: str = row.get("prompt", prompt) + row["query"]
    return text


def test_a_rerankers_scores(tiny_classifier: Path, tmp_path: Path) -> None:
    rows = groups(40)
    data = write(tmp_path / "rows.jsonl", rows)
    reranker = Reranker.from_pretrained(tiny_classifier)
    for scale in ("raw", "sigmoid"):
        output = tmp_path / f"{scale}.jsonl"
        assert main(command(data, output, tiny_classifier, "--scores", scale)) == 0
        found = read(output)
        assert len(found) == 40
        for row, scored in zip(rows, found, strict=True):
            assert {name: scored[name] for name in row} == row
            for side in ("pos", "neg"):
                texts = [(asked(row), text) for text in row[side]]
                expected = reranker.score(texts, raw=scale == "raw").tolist()
                assert scored[f"{side}_scores"] == pytest.approx(expected, abs=2e-5)
    rows_read = load_rows(str(output), "candidate_group", ReadOptions())
    assert len(rows_read[1]["neg_scores"]) == len(rows[1]["neg"])


@pytest.mark.parametrize("scale", ["raw", "sigmoid"])
def test_negatives_that_the_teacher_takes_for_answers_become_positives(
    scale: str, tiny_classifier: Path, tmp_path: Path
) -> None:
    rows = groups(40)
    data = write(tmp_path / "rows.jsonl", rows)
    reranker = Reranker.from_pretrained(tiny_classifier)
    scores = [reranker.score([(asked(row), text) for text in row["neg"]]) for row in rows]
    lowest = float(torch.cat(scores).median()) + 1e-5
    flags = ("--scores", scale, "--relabel_from", lowest)
    assert main(command(data, tmp_path / "out.jsonl", tiny_classifier, *flags)) == 0
    for row, own, found in zip(rows, scores, read(tmp_path / "out.jsonl"), strict=True):
        answers = [text for text, score in zip(row["neg"], own, strict=True) if score >= lowest]
        assert found["pos"] == row["pos"] + answers
        assert found["neg"] == [text for text in row["neg"] if text not in answers]
        for side in ("pos", "neg"):
            texts = [(asked(row), text) for text in found[side]]
            expected = reranker.score(texts, raw=scale == "raw").tolist()
            assert found[f"{side}_scores"] == pytest.approx(expected, abs=2e-5)


def test_an_embedders_cosines(tiny_bert: Path, tmp_path: Path) -> None:
    rows = groups(40)
    data, output = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    flags = ("--query_prompt", "查询：", "--document_max_length", 8)
    assert main(command(data, output, tiny_bert, *flags)) == 0
    model = Embedder.from_pretrained(tiny_bert)
    for row, scored in zip(rows, read(output), strict=True):
        query = model.encode([asked(row, "查询：")])
        for side in ("pos", "neg"):
            vectors = model.encode(row[side], max_length=8)
            expected = F.cosine_similarity(query, vectors).tolist() if row[side] else []
            assert scored[f"{side}_scores"] == pytest.approx(expected, abs=1e-5)


def test_other_shapes_are_written_as_groups_and_losses_are_told(
    tiny_classifier: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"query": "猫", "doc": "a cat", "rel": 1},
        {"query": "猫", "doc": "a dog", "rel": 0.25},
        {"query": "天气", "pos_doc": "很好"},
        {"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": [9], "neg_scores": [1]},
    ]
    data, output = write(tmp_path / "rows.jsonl", rows), tmp_path / "out.parquet"
    assert main(command(data, output, tiny_classifier)) == 0
    found = load_rows(str(output), "candidate_group", ReadOptions())
    assert [(row["pos"], row["neg"]) for row in found] == [
        (["a cat"], ["a dog"]), (["很好"], []), (["a"], ["b"]),
    ]  # fmt: skip
    assert "lost: the teacher's scores of 1 rows, replaced" in caplog.text
    assert "lost: the relevances between 0 and 1 of 1 rows" in caplog.text


def test_mistakes(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", groups(2))
    for model, flags, message in (
        (tiny_bert, ("--scores", "sigmoid"), "scores: does not apply to"),
        (tiny_classifier, ("--query_prompt", "x"), "query_prompt: does not apply to"),
        (tmp_path, (), "holds no model"),
    ):
        assert main(command(data, tmp_path / "out.jsonl", model, *flags)) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert line.startswith("error: ") and message in line
    (tmp_path / "out.jsonl").touch()
    assert main(command(data, tmp_path / "out.jsonl", tiny_bert)) == 2
    assert "add --overwrite" in capsys.readouterr().err
