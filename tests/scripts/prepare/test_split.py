"""prepare_data.py split: parts that share nothing, with everything in them."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loaders import ReadOptions, load_rows
from preparation.duplicates.near_duplicates import similar_pairs
from scripts.prepare_data import main

PARTS = ("train", "validation", "test")


def split(source: Path, output: Path, *flags: str) -> int:
    return main(["split", "--input", str(source), "--output_dir", str(output), *flags])


def read(folder: Path, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{part}.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """300 groups in Chinese and English; every third one has a changed copy further on."""
    rng = random.Random(3)
    words = ["".join(rng.choices("bdfgklmnprst", k=4)) for _ in range(800)]
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 800)]
    records: list[dict[str, Any]] = []
    for number in range(225):
        texts = [" ".join(rng.sample(words, n)) for n in (6, 30, 30)]
        if number % 2:
            texts = ["".join(rng.sample(letters, n)) for n in (10, 40, 40)]
        query, pos, neg = texts
        records.append({"query": query, "pos": [pos], "neg": [neg], "type": "normal", "n": number})
    for number in range(0, 225, 3):
        one = records[number]
        changed = one["pos"][0][:-3] + "末尾改"
        records.append({"query": f"anders {number}", "pos": [changed], "neg": [], "n": number})
    rng.shuffle(records)
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return path


def test_copies_stay_together_and_nothing_is_lost(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert split(source, tmp_path / "out") == 0
    parts = [read(tmp_path / "out", part) for part in PARTS]
    assert [len(part) for part in parts] == [240, 30, 30]
    everything = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    assert sorted((r for part in parts for r in part), key=str) == sorted(everything, key=str)
    numbers = [{record["n"] for record in part} for part in parts]
    assert sum(map(len, numbers)) == 225
    documents = [[text for r in part for text in r["pos"] + r["neg"]] for part in parts]
    places = [at for at, texts in enumerate(documents) for _ in texts]
    joined = [text for texts in documents for text in texts]
    pairs = list(similar_pairs(joined, 0.8))
    assert len(pairs) == 75 and all(places[one] == places[two] for one, two, _ in pairs)
    out = capsys.readouterr().out
    assert "300 rows form 225 components, the largest of 2 rows; 75 pairs" in out


def test_without_near_duplicates_copies_go_apart(source: Path, tmp_path: Path) -> None:
    assert split(source, tmp_path / "out", "--near_duplicates", "0") == 0
    numbers = [{record["n"] for record in read(tmp_path / "out", part)} for part in PARTS]
    assert sum(map(len, numbers)) > 225


def test_seeds(source: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert split(source, tmp_path / name, "--seed", seed) == 0
    contents = [(tmp_path / name / "test.jsonl").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_two_parts_of_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        lines = [
            json.dumps({"query": f"问{name}{n}", "pos_doc": f"答{name}{n}"}) for n in range(50)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    files = ["--input", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    shares = ["--shares", "0.75", "0.25", "--near_duplicates", "0"]
    assert main(["split", *files, "--output_dir", str(tmp_path / "out"), *shares]) == 0
    assert [len(read(tmp_path / "out", part)) for part in ("train", "test")] == [75, 25]
    assert not (tmp_path / "out" / "validation.jsonl").exists()
    again = ["split", *files, "--output_dir", str(tmp_path / "out"), "--overwrite"]
    assert main([*again, "--near_duplicates", "0"]) == 0
    assert main([*again, *shares]) == 2
    assert "validation.jsonl is of another split, and its rows may be" in capsys.readouterr().err


def test_shared_negatives_hang_everything_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"query": f"q{n}", "pos": [f"p{n}"], "neg": ["same"]}) for n in range(100)]
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines), "utf-8")
    assert split(source, tmp_path / "out", "--near_duplicates", "0") == 2
    assert "they form 1 components, the largest of 100 rows (100%)" in capsys.readouterr().err
    flags = ["--near_duplicates", "0", "--by", "positive"]
    assert split(source, tmp_path / "out", *flags) == 0
    assert "--by positive: 2 documents are in several parts" in capsys.readouterr().out


def test_shares_that_cannot_be_met_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"query": f"q{max(n, 90)}", "pos_doc": f"p{n}"}) for n in range(100)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), "utf-8")
    assert split(tmp_path / "in.jsonl", tmp_path / "out", "--near_duplicates", "0") == 0
    out = capsys.readouterr().out
    assert (
        "the shares of train, validation, test are not met: the largest component has 91.0%" in out
    )


def test_a_second_column_for_a_field_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"question {at},answer {at},other {at},web\n" for at in range(30))
    (tmp_path / "in.csv").write_text("query,pos_doc,document,source\n" + rows)
    assert split(tmp_path / "in.csv", tmp_path / "out") == 0
    assert (
        'the column "document" of 30 rows is left out: its name stands for "doc"'
        in capsys.readouterr().out
    )
    assert read(tmp_path / "out", "train")[0].keys() == {"query", "pos_doc", "source"}


def test_tables_keep_their_meaning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grades = tmp_path / "grades.tsv"
    grades.write_text("".join(f"问{n}\t答{n}\t{n % 4}\n" for n in range(40)), "utf-8")
    assert split(grades, tmp_path / "a", "--near_duplicates", "0") == 0
    assert "40 labels are read as grades" in capsys.readouterr().out
    table = tmp_path / "table.csv"
    rows = "".join(f"q{n},d{n},{n % 6},{n + 1},topic {n}\n" for n in range(40))
    table.write_text("sentence1,sentence2,score,weight,topic\n" + rows, "utf-8")
    flags = ["--label_range", "0", "5", "--near_duplicates", "0"]
    assert split(table, tmp_path / "b", *flags) == 0
    for source, folder, options in (
        (grades, "a", ReadOptions()),
        (table, "b", ReadOptions(label_range=(0, 5))),
    ):
        files = [str(tmp_path / folder / f"{part}.jsonl") for part in PARTS]
        made = list(load_rows(files, "scored_pair", ReadOptions()))
        expected = list(load_rows(str(source), "scored_pair", options))
        assert sorted(made, key=str) == sorted(expected, key=str)
    topics = [row["topic"] for part in PARTS for row in read(tmp_path / "b", part)]
    assert sorted(topics) == sorted(f"topic {n}" for n in range(40))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shares", "1"], "shares: takes two or three numbers, got 1"),
        (["--shares", "0.5", "0.4"], "shares: must be above 0 and add up to 1, got 0.5 0.4"),
        (["--shares", "1", "0"], "shares: must be above 0 and add up to 1, got 1 0"),
        (["--near_duplicates", "2"], "near_duplicates: must be from 0 to 1, got 2"),
    ],
)
def test_mistakes(
    flags: list[str],
    message: str,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert split(source, tmp_path / "out", *flags) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.realdata
def test_real_questions(realdata: Callable[[str], Path], tmp_path: Path) -> None:
    source = realdata("t2ranking_100/t2rank_100.jsonl")
    assert split(source, tmp_path) == 0
    texts = [
        {text for row in read(tmp_path, part) for text in (row["query"], *row["pos"], *row["neg"])}
        for part in PARTS
    ]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
