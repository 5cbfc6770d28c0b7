"""Each shape from each other where nothing is invented, row by row."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from loaders import ReadOptions, Shape, detect_shape, load_rows


def write(path: Path, *records: dict[str, Any]) -> str:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def read(file: str | list[str], shape: Shape, **options: Any) -> list[dict[str, Any]]:
    rows = load_rows(file, shape, ReadOptions(**options))
    return [rows[index] for index in range(len(rows))]


GROUP = {
    "query": "猫吃什么",
    "pos": ["鱼", "肉"],
    "neg": ["石头"],
    "pos_scores": [96.7, 90],
    "neg_scores": [12],
    "prompt": "检索：",
}


def test_group_stays_a_group_with_its_teacher_scores(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", GROUP, {"query": "q", "pos": "p"})
    assert read(file, "candidate_group") == [
        {**GROUP, "graded": False},
        {
            "query": "q",
            "pos": ["p"],
            "neg": [],
            "pos_scores": None,
            "neg_scores": None,
            "prompt": None,
            "graded": False,
        },
    ]
    assert detect_shape(file, ReadOptions()) == "candidate_group"


def test_group_to_scored_pairs(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", GROUP)
    common = {"query": "猫吃什么", "weight": 1.0, "key": None, "prompt": "检索："}
    assert read(file, "scored_pair") == [
        {**common, "doc": "鱼", "rel": 1.0},
        {**common, "doc": "肉", "rel": 1.0},
        {**common, "doc": "石头", "rel": 0.0},
    ]
    scored = read(file, "scored_pair", relevance_from_scores=True, label_range=(0, 100))
    assert [row["rel"] for row in scored] == pytest.approx([0.967, 0.9, 0.12])


def test_relevance_from_scores_divides_anew(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        {"query": "北京", "pos": ["a", "b"], "neg": ["c"], "scores": [5, 1], "neg_scores": [4.0]},
        {"query": "none good", "pos": [], "neg": ["x"], "neg_scores": [0]},
    )
    options: dict[str, Any] = {"relevance_from_scores": True, "label_range": (0, 5)}
    assert read(file, "candidate_group", **options) == [
        {
            "query": "北京",
            "pos": ["a", "c"],
            "neg": ["b"],
            "pos_scores": [1.0, 0.8],
            "neg_scores": [0.2],
            "prompt": None,
            "graded": True,
        },
        {
            "query": "none good",
            "pos": [],
            "neg": ["x"],
            "pos_scores": [],
            "neg_scores": [0.0],
            "prompt": None,
            "graded": True,
        },
    ]
    assert [row["pos_doc"] for row in read(file, "positive_pair", **options)] == ["a", "c"]


def test_scored_pairs_unite_across_files_in_order_of_first_appearance(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = write(
        tmp_path / "a.jsonl",
        {"query": "问", "doc": "好", "rel": 1},
        {"query": "other", "doc": "x", "rel": 0.5, "weight": 3},
        {"query": "问", "doc": "坏", "rel": 0.1},
        {"query": "问", "doc": "p", "rel": 1, "prompt": "P: "},
    )
    second = write(
        tmp_path / "b.jsonl",
        {"query": "group", "pos": ["y"], "neg": ["z"], "pos_scores": [77], "neg_scores": [5]},
        {"query": "other", "doc": "w", "rel": 0.2},
        {"query": "问", "doc": "中", "rel": 0.5},
    )
    rows = read([first, second], "candidate_group")
    texts = [(row["query"], row["pos"], row["neg"], row["prompt"]) for row in rows]
    assert texts == [
        ("问", ["好", "中"], ["坏"], None),
        ("other", ["x"], ["w"], None),
        ("问", ["p"], [], "P: "),
        ("group", ["y"], ["z"], None),
    ]
    # A teacher's 77 is not taken for a relevance.
    assert [row["graded"] for row in rows] == [True, True, True, False]
    scores = [(row["pos_scores"], row["neg_scores"]) for row in rows]
    assert scores == [([1.0, 0.5], [0.1]), ([0.5], [0.2]), ([1.0], []), ([77.0], [5.0])]
    flat = "1 of 4 queries have documents of one relevance only"
    assert any(message.startswith(flat) for message in caplog.messages)
    assert "groups have no weights: those of 1 scored pairs are not used" in caplog.messages


def test_many_scored_pairs_interleaved(tmp_path: Path) -> None:
    pairs = [{"query": f"问{i % 37}", "doc": f"d{i}", "rel": i % 2} for i in range(3000)]
    rows = read(write(tmp_path / "a.jsonl", *pairs), "candidate_group", positive_threshold=0.7)
    assert [row["query"] for row in rows] == [f"问{i}" for i in range(37)]
    for number, row in enumerate(rows):
        assert row["pos"] == [f"d{i}" for i in range(number, 3000, 37) if i % 2]
        assert row["neg"] == [f"d{i}" for i in range(number, 3000, 37) if not i % 2]


def test_positive_pair_records(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        {"query": "q", "pos_doc": "答案", "negatives": ["n1", "n2"]},
        {"query": "q2", "pos_doc": "answer", "neg": "n"},
        {"query": "q3", "pos_doc": "only"},
    )
    assert detect_shape(file, ReadOptions()) == "positive_pair"
    groups = read(file, "candidate_group")
    assert [(row["pos"], row["neg"]) for row in groups] == [
        (["答案"], ["n1", "n2"]),
        (["answer"], ["n"]),
        (["only"], []),
    ]
    pairs = read(file, "scored_pair")
    assert [(row["doc"], row["rel"]) for row in pairs] == [
        ("答案", 1.0),
        ("n1", 0.0),
        ("n2", 0.0),
        ("answer", 1.0),
        ("n", 0.0),
        ("only", 1.0),
    ]


def test_hits_are_graded_groups(tmp_path: Path) -> None:
    hits = [
        {"content": "a", "label": 3},
        {"content": "b", "label": 0},
        {"content": "c", "label": 2},
    ]
    file = write(tmp_path / "a.jsonl", {"query": "问", "hits": hits})
    options: dict[str, Any] = {"label_map": {"3": 1, "2": 0.75, "1": 0.5, "0": 0.25}}
    (row,) = read(file, "candidate_group", **options)
    assert (row["pos"], row["pos_scores"]) == (["a", "c"], [1.0, 0.75])
    assert (row["neg"], row["neg_scores"]) == (["b"], [0.25])
    assert row["graded"]
    assert [pair["rel"] for pair in read(file, "scored_pair", **options)] == [1.0, 0.75, 0.25]
    (row,) = read(file, "candidate_group", label_range=(0, 3))
    assert row["pos_scores"] == pytest.approx([1, 2 / 3])


def test_queries_without_positives_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "loaders")
    file = write(
        tmp_path / "a.jsonl",
        {"query": "q", "doc": "a", "rel": 1},
        {"query": "r", "doc": "b", "rel": 0.2},
        {"query": "q", "doc": "c", "rel": 0},
        {"query": "s", "doc": "d", "rel": 0.9},
    )
    assert [row["query"] for row in read(file, "positive_pair")] == ["q", "s"]
    assert caplog.messages == [
        "1 queries are left out: none of their documents has a relevance of at least 0.5 "
        "(positive_threshold)"
    ]
    assert [row["query"] for row in read(file, "candidate_group")] == ["q", "r", "s"]


def test_nothing_left(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"query": "q", "doc": "a", "rel": 0})
    with pytest.raises(ValueError, match=r"^no row is left to train on: 1 queries are left out"):
        read(file, "positive_pair")
    file = write(tmp_path / "b.jsonl", {"query": "q", "doc": "a", "rel": 0}, {"query": "坏"})
    with pytest.raises(ValueError, match=r"^1 of 2 rows are bad"):
        read(file, "positive_pair")


def test_groups_and_scored_pairs_round_trip(tmp_path: Path) -> None:
    pairs = read(write(tmp_path / "a.jsonl", GROUP, {**GROUP, "query": "两"}), "scored_pair")
    groups = read(write(tmp_path / "b.jsonl", *pairs), "candidate_group")
    assert [(g["query"], g["pos"], g["neg"], g["prompt"]) for g in groups] == [
        ("猫吃什么", ["鱼", "肉"], ["石头"], "检索："),
        ("两", ["鱼", "肉"], ["石头"], "检索："),
    ]
    again = read(write(tmp_path / "c.jsonl", *groups), "scored_pair", relevance_from_scores=True)
    assert again == pairs
