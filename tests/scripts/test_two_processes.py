"""Evaluating, mining and scoring by two processes give what one gives."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from evaluation.data.trec import read_run
from forked import together
from mining.cache.vectors import read_part
from runs import write_format
from scripts import evaluate, mine_negatives, score_with_teacher
from tiny import TEXTS

WORDS = [word for text in TEXTS for word in text.replace(",", "").split()]


def write(path: Path, rows: Iterable[object]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def pairs() -> list[dict[str, Any]]:
    """More than one block of texts, and of queries; queries share a word with their documents."""
    draw = random.Random(0)
    words = [draw.choices(WORDS, k=6) for _ in range(1100)]
    return [
        {"query": f"{own[0]} {number}", "pos_doc": f"{' '.join(own)} {number}"}
        for number, own in enumerate(words)
    ]


def groups() -> list[dict[str, Any]]:
    """More than one block of pairs, some of which repeat; every third has a prompt."""
    rows = []
    for number in range(1500):
        texts = [f"{TEXTS[(number + at) % 10]} {(number + at) // 2}" for at in range(3)]
        row = {"query": f"问 {number % 50}", "pos": texts[:1], "neg": texts[1 : 1 + number % 3]}
        rows.append(row | ({"prompt": "find: "} if number % 3 == 0 else {}))
    return rows


@pytest.fixture(scope="module")
def commands(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_classifier: Path
) -> dict[str, dict[str, list[str]]]:
    """What each of the folders "one" and "two" is filled by; "two" by two processes."""
    folder = tmp_path_factory.mktemp("two_processes")
    judged = write_format("groups", folder)
    mined, scored = write(folder / "mined.jsonl", pairs()), write(folder / "scored.jsonl", groups())
    mining = ["--random_share", "0.3", "--num_negatives", "3", "--reranker", str(tiny_classifier)]
    found = {}
    for name in ("one", "two"):
        output = folder / name
        output.mkdir()
        found[name] = {
            "evaluate": ["--data", str(judged), "--model", str(tiny_bert),
                         "--output_dir", str(output)],
            "score_with_teacher": ["--input", str(scored), "--output", str(output / "scored.jsonl"),
                                   "--model", str(tiny_classifier),
                                   "--cache_dir", str(output / "scores")],
            "mine_negatives": ["--input", str(mined), "--output", str(output / "mined.jsonl"),
                               "--embedder", str(tiny_bert), *mining,
                               "--cache_dir", str(output / "mining")],
        }  # fmt: skip
    return found


@pytest.fixture(scope="module")
def told(commands: dict[str, dict[str, list[str]]]) -> str:
    """What they printed."""
    return "".join(
        together(2, [f"scripts/{name}.py", *own]) for name, own in commands["two"].items()
    )


def outputs(commands: dict[str, dict[str, list[str]]], script: str, flag: str) -> list[Path]:
    """Of one process and of two."""
    found = (commands[name][script] for name in ("one", "two"))
    return [Path(own[own.index(flag) + 1]) for own in found]


def test_the_figures_are_those_of_one(commands: dict[str, dict[str, list[str]]], told: str) -> None:
    assert evaluate.main(commands["one"]["evaluate"]) == 0
    folders = outputs(commands, "evaluate", "--output_dir")
    assert told.count(f"the report is {folders[1]}") == 1
    one, two = (
        json.loads((folder / "evaluation.json").read_text(encoding="utf-8")) for folder in folders
    )
    assert one["metrics"] == two["metrics"]
    ranked = [
        {query: list(found) for query, found in read_run(folder / "run.trec").items()}
        for folder in folders
    ]
    assert ranked[0] == ranked[1]


def test_the_same_negatives(commands: dict[str, dict[str, list[str]]], told: str) -> None:
    assert mine_negatives.main(commands["one"]["mine_negatives"]) == 0
    one, two = outputs(commands, "mine_negatives", "--output")
    assert two.read_bytes() == one.read_bytes()
    assert told.count(f"settings and digests are in {two}") == 1
    # Both have encoded: each block of texts by one of them.
    (folder,) = (two.parent / "mining" / "vectors").iterdir()
    parts = [len(read_part(keys, 32).keys) for keys in sorted(folder.glob("*.keys"))]
    assert sorted(parts) == [76 + 76, 1024 + 1024]


def test_the_same_scores_and_a_second_run(
    commands: dict[str, dict[str, list[str]]], told: str
) -> None:
    assert score_with_teacher.main(commands["one"]["score_with_teacher"]) == 0
    one, two = outputs(commands, "score_with_teacher", "--output")
    assert two.read_bytes() == one.read_bytes()
    # Each different pair was scored once, by one of the two.
    scored = {
        (row.get("prompt", "") + row["query"], text)
        for row in groups()
        for text in row["pos"] + row["neg"]
    }
    (folder,) = (two.parent / "scores" / "scores").iterdir()
    parts = [read_part(keys, 1).keys for keys in folder.glob("*.keys")]
    assert len(parts) == 2
    assert sum(map(len, parts)) == len(scored)
    # A second run has nothing to compute.
    before = [(file.name, file.stat().st_size) for file in sorted(folder.iterdir())]
    assert score_with_teacher.main([*commands["two"]["score_with_teacher"], "--overwrite"]) == 0
    assert [(file.name, file.stat().st_size) for file in sorted(folder.iterdir())] == before
