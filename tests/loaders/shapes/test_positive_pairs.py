"""Positive pairs of queries with any number of positives, against what a naive reading gives."""

import json
import pickle
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertTokenizer

from collators import ContrastiveCollator
from collators.contrastive import is_among, relevant_hashes
from common.hashing import text_hashes
from loaders import ReadOptions, load_rows, load_rows_in_place
from loaders.shapes.positive_pairs import OtherPositives

WORDS = ["cat", "dog", "天气", "csv", "mat", "Paris", "药"]


def random_groups(seed: int, queries: int = 6, groups: int = 25) -> list[dict[str, Any]]:
    """Queries that stand in several groups, with positives and negatives that repeat."""
    draw = random.Random(seed)
    texts = [f"{draw.choice(WORDS)} {at % 40}" for at in range(60)]
    return [
        {
            "query": f"query {draw.randrange(queries)}",
            "pos": [draw.choice(texts) for _ in range(draw.choice([1, 1, 2, 30]))],
            "neg": [draw.choice(texts) for _ in range(draw.randrange(8))],
            **({"prompt": "P: "} if draw.random() < 0.3 else {}),
        }
        for _ in range(groups)
    ]


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("read", [load_rows, load_rows_in_place])
@pytest.mark.parametrize("seed", range(3))
def test_rows_are_those_of_a_naive_reading(read: Any, seed: int, tmp_path: Path) -> None:
    groups = random_groups(seed)
    rows = read(write(tmp_path / "a.jsonl", groups), "positive_pair", ReadOptions())
    rows = pickle.loads(pickle.dumps(rows))
    known: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        known[group["query"]] |= set(group["pos"])
    expected = [(group, pos) for group in groups for pos in group["pos"]]
    assert len(rows) == len(expected)
    for at, (group, pos) in enumerate(expected):
        row = rows[at]
        others = row["other_positives"]
        assert (row["query"], row["pos_doc"], row["negatives"]) == (
            group["query"],
            pos,
            group["neg"],
        )
        assert row["prompt"] == group.get("prompt")
        assert set(others) == known[group["query"]] - {pos}
        assert len(others) == len(list(others)) == len(set(others))
        first = dict.fromkeys(text for text in group["pos"] if text != pos)
        assert list(others)[: len(first)] == list(first)  # its own group's come first
    assert rows[-1] == rows[len(rows) - 1]
    with pytest.raises(IndexError):
        rows[len(rows)]


def naive_batch(rows: list[dict[str, Any]], documents: list[str]) -> list[list[bool]]:
    """Whether a document is excluded for a query, by comparing texts."""
    relevant: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        relevant[row["query"]] |= {row["pos_doc"], *row["other_positives"]}
    return [
        [text != row["pos_doc"] and text in relevant[row["query"]] for text in documents]
        for row in rows
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_batch_masks_what_a_comparison_of_texts_masks(
    seed: int, tmp_path: Path, tiny_tokenizer: BertTokenizer
) -> None:
    """The rows of the loader, and the same rows with lists for ``other_positives``."""
    rows = load_rows(
        write(tmp_path / "a.jsonl", random_groups(seed)), "positive_pair", ReadOptions()
    )
    draw = random.Random(seed)
    chosen = [{**rows[at], "row": at, "epoch": 0} for at in draw.sample(range(len(rows)), 12)]
    # A row of another source may ask the same and know of other answers.
    chosen.append({**chosen[0], "pos_doc": "cat 77", "other_positives": ["dog 78"], "row": 999})
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16, train_group_size=4)
    candidates = [row["pos_doc"] for row in chosen]
    for row in chosen:
        drawn = collate.hard_negatives(row)
        assert len(set(drawn)) == len(drawn)
        assert not {row["pos_doc"], *row["other_positives"]} & set(drawn)
        candidates += drawn
    documents = list(dict.fromkeys(candidates))
    batch = collate(chosen)
    assert batch["false_negative_mask"].tolist() == naive_batch(chosen, documents)
    assert [documents[at] for at in batch["positives"]] == [row["pos_doc"] for row in chosen]
    assert batch["hashes"].tolist() == text_hashes(documents).tolist()
    plain = [{**row, "other_positives": list(row["other_positives"])} for row in chosen]
    for name, value in collate(plain).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, batch[name]), name


def test_texts_are_known_by_their_hashes() -> None:
    texts = ["", "a", "汉字", "x" * 10_000, *map(str, range(1000))]
    assert len(set(text_hashes(texts).tolist())) == len(texts)
    row = {"pos_doc": "a", "other_positives": ["b", "a", "b"]}
    assert relevant_hashes(row).tolist() == sorted(set(text_hashes(["a", "b"]).tolist()))
    assert is_among(text_hashes(["b", "c"]), relevant_hashes(row)).tolist() == [True, False]


def test_a_row_reads_no_positive_but_its_own(tmp_path: Path) -> None:
    """However many a query has: they are read when somebody asks for them, and counted before."""
    records = [{"query": "q", "pos_doc": f"document {at}"} for at in range(300)]
    rows = load_rows(write(tmp_path / "a.jsonl", records), "positive_pair", ReadOptions())
    asked = 0
    inner = rows._positives

    def counting(at: int) -> Any:
        nonlocal asked
        asked += 1
        return inner(at)

    rows._positives = counting  # type: ignore[method-assign]
    row = rows[17]
    others = row["other_positives"]
    assert isinstance(others, OtherPositives) and len(others) == 299
    assert others.hashes.base is rows.hashes  # one memory for all rows
    assert asked == 0
    assert len(list(others)) == 299 and asked == 1


def test_identical_documents_are_one_positive(tmp_path: Path) -> None:
    records = [{"query": "q", "pos_doc": "the same"}] * 50
    rows = load_rows(write(tmp_path / "a.jsonl", records), "positive_pair", ReadOptions())
    assert len(rows) == 50
    assert len(rows[49]["other_positives"]) == 0
