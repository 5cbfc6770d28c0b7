"""Made-up rows in the forms that public data sets have; ``test_realdata.py`` reads the sets."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from loaders import ReadOptions, Shape, load_rows

PLAIN = {"query": "鹦鹉吃鱼吗", "pos": ["吃小鱼"], "neg": ["吃草", "吃种子"]}
TAUGHT = PLAIN | {
    "pos_scores": [96.5],
    "neg_scores": [90.25, -3.0],
    "prompt": "找答案：",
    "type": "normal",
}
JUDGED = [
    ("鹦鹉吃鱼吗", "吃小鱼", 0.75),
    ("鹦鹉吃鱼吗", "吃草", 0.0625),
    ("硬盘震动", "很精密", 0.5),
]
# T2Ranking, distilled: one pair a row; all documents as positives; positives and negatives.
DISTILLED: dict[str, list[dict[str, Any]]] = {
    "pairs": [{"query": query, "content": doc, "score": score} for query, doc, score in JUDGED],
    "positives": [
        {"query": "鹦鹉吃鱼吗", "pos": ["吃小鱼", "吃草"], "pos_scores": [0.75, 0.0625]},
        {"query": "硬盘震动", "pos": ["很精密"], "scores": [0.5]},
    ],
    "both": [
        {"query": "鹦鹉吃鱼吗", "pos": ["吃小鱼"], "neg": ["吃草"], "pos_scores": [0.75],
         "neg_scores": [0.0625]},
        {"query": "硬盘震动", "pos": ["很精密"], "neg": [], "pos_scores": [0.5], "neg_scores": []},
    ],
}  # fmt: skip
MLDR = {
    "query_id": "q-en-1",
    "query": "What is the syntax?",
    "positive_passages": [{"docid": "doc-en-8", "text": "$c = $a ?: $b;"}],
    "negative_passages": [{"docid": f"doc-en-{n}", "text": f"text {n}"} for n in range(7)],
}


def write(path: Path, *records: dict[str, Any]) -> str:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def counts(file: str, options: ReadOptions) -> list[int]:
    """How many scored pairs, positive pairs and groups a file gives."""
    shapes: tuple[Shape, ...] = ("scored_pair", "positive_pair", "candidate_group")
    return [len(load_rows(file, shape, options)) for shape in shapes]


@pytest.mark.parametrize(
    ("record", "expected"), [(PLAIN, [3, 1, 1]), (TAUGHT, [3, 1, 1]), (MLDR, [8, 1, 1])]
)
def test_groups_in_every_shape(record: dict[str, Any], expected: list[int], tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", record)
    assert counts(file, ReadOptions()) == expected
    (group,) = load_rows(file, "candidate_group", ReadOptions())
    assert group["pos_scores"] == record.get("pos_scores")
    assert group["prompt"] == record.get("prompt")
    assert not group["graded"]  # a teacher's scores are no relevances
    assert load_rows(file, "scored_pair", ReadOptions())["rel"] == [1.0] + [0.0] * (expected[0] - 1)


@pytest.mark.parametrize("form", DISTILLED)
def test_distilled_relevances_say_the_same_in_every_form(form: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *DISTILLED[form])
    options = ReadOptions(relevance_from_scores=True)
    pairs = load_rows(file, "scored_pair", options)
    assert [(row["query"], row["doc"], row["rel"]) for row in pairs] == JUDGED
    groups = load_rows(file, "candidate_group", options)
    assert [(row["pos"], row["neg"], row["graded"]) for row in groups] == [
        (["吃小鱼"], ["吃草"], True),
        (["很精密"], [], True),
    ]
    assert counts(file, options) == [3, 2, 2]


def test_sts_tables_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "stsb-dev.csv"
    table = [
        ("A man, dancing.", "A man dances.", "5.0"),
        ("一架飞机正在起飞。", "一架飞机。", "3.8"),
        ("A man, dancing.", "A child.", "0.5"),
    ]
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(table)
    options = ReadOptions(label_range=(0, 5))
    assert load_rows(str(path), "scored_pair", options)["rel"] == [1.0, 3.8 / 5, 0.1]
    assert counts(str(path), options) == [3, 2, 2]
    first = load_rows(str(path), "candidate_group", options)[0]
    assert (first["pos"], first["neg"], first["graded"]) == (["A man dances."], ["A child."], True)


def test_a_corpus_is_no_training_file(tmp_path: Path) -> None:
    file = write(tmp_path / "corpus.jsonl", {"docid": "doc-en-1", "text": "Mars Hill Church"})
    with pytest.raises(ValueError, match='missing field "query"'):
        load_rows(file, "candidate_group", ReadOptions())
