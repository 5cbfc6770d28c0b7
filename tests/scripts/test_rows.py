"""``columns`` and splits in every script that reads rows, and in recipes with several sources."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

import scripts.evaluate
import scripts.mine_negatives
import scripts.prepare_data
from runs import groups, losses, train

COLUMNS = {"question": "query", "passages.gold.text": "pos", "passages.others": "neg"}
FLAG = ["--columns", json.dumps(COLUMNS)]


def records() -> list[dict[str, Any]]:
    """The topics under other people's names."""
    return [
        {
            "question": group["query"],
            "passages": {
                "gold": [{"text": text} for text in group["pos"]],
                "others": [{"title": "", "text": text} for text in group["neg"]],
            },
            "query": "an id",
        }
        for group in groups()
    ]


@pytest.fixture
def clone(tmp_path: Path) -> str:
    """A data set with three splits on disk."""
    parts = {"train": records(), "validation": records()[:6], "test": records()[6:]}
    both = DatasetDict({name: Dataset.from_list(rows) for name, rows in parts.items()})
    both.save_to_disk(str(tmp_path / "clone"))
    return str(tmp_path / "clone")


def run(main: Any, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main([*words])
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return status, output.out, output.err


def test_prepare_data(clone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, out = scripts.prepare_data.main, tmp_path / "groups.jsonl"
    to = ["convert", "--to", "groups", "--output", str(out), "--allow_loss", *FLAG]
    status, _, error = run(main, capsys, *to, "--input", clone)
    assert status == 2 and "it has several splits, and none is chosen: train, validation" in error
    for words in (["--input", clone, "--split", "test"], ["--input", f"{clone}@test"]):
        assert run(main, capsys, *to, *words, "--overwrite")[0] == 0
        made = [json.loads(line) for line in out.read_text().splitlines()]
        assert made == list(groups())[6:]
    status, text, _ = run(
        main, capsys, "validate", *FLAG, "--input", f"{clone}@train", f"{clone}@validation"
    )
    assert status == 1 and "clone@train and clone@validation share 3 queries" in text
    wrong = ["convert", "--to", "groups", "--output", str(out), "--overwrite", "--input"]
    status, _, error = run(main, capsys, *wrong, f"{clone}@train", "--columns", '{"a": "qery"}')
    assert status == 2 and error.startswith('error: columns: cannot map "a" to "qery"')


def test_split_writes_what_it_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of tables, too, with a numbered negative: each text stands in one field, under our names."""
    table = tmp_path / "a.csv"
    lines = [f"q{at} {at * 7},p{at},n{at} only,x{at}" for at in range(9)]
    table.write_text("\n".join(["asked,positive,negative_1,other", *lines]))
    words = ["--output_dir", str(tmp_path / "parts"), "--shares", "0.5", "0.5"]
    columns = ["--columns", '{"asked": "query"}']
    assert (
        run(scripts.prepare_data.main, capsys, "split", "--input", str(table), *words, *columns)[0]
        == 0
    )
    parts = [path.read_text() for path in (tmp_path / "parts").glob("*.jsonl")]
    rows = [json.loads(line) for part in parts for line in part.splitlines()]
    assert sorted(rows, key=lambda row: str(row["query"])) == [
        {"query": f"q{at} {at * 7}", "pos": [f"p{at}"], "neg": [f"n{at} only"], "other": f"x{at}"}
        for at in range(9)
    ]


def test_mine_negatives(clone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mined.jsonl"
    words = ["--bm25", "--num_negatives", "1", "--rank_range", "1", "9", "--existing", "replace"]
    words += ["--cache_dir", str(tmp_path / "cache"), "--output", str(out), *FLAG]
    main = scripts.mine_negatives.main
    status, _, error = run(main, capsys, *words, "--input", clone)
    assert status == 2 and "several splits" in error
    status, _, error = run(main, capsys, *words, "--input", clone, "--split", "train")
    assert status == 0, error
    mined = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["query"] for row in mined] == [row["question"] for row in records()]


def test_train_and_evaluate(
    clone: str, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {
        "objective": "contrastive", "model_name_or_path": tiny_bert, "max_steps": 1,
        "eval_strategy": "steps", "eval_steps": 1,
    }  # fmt: skip
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(row) + "\n" for row in groups()))
    files = {"train_file": clone, "split": "train", "columns": COLUMNS}
    runs = [
        train(tmp_path / "a", **given, **files, eval_file=clone, eval_split="validation"),
        train(tmp_path / "b", **given, **files, eval_file=str(own), eval_columns={}),
        train(
            tmp_path / "c", **given, eval_file=f"{clone}@test", eval_columns=COLUMNS,
            train_files=[str(own), {"path": clone, "split": "test", "columns": COLUMNS}],
        ),
    ]  # fmt: skip
    assert all(losses(run, "eval_loss") for run in runs)
    for unnamed in ({"split": None}, {"eval_split": None}):
        with pytest.raises(SystemExit):
            train(
                tmp_path / "d",
                **given | files | {"eval_file": clone, "eval_split": "test"} | unnamed,
            )
        assert "it has several splits, and none is chosen" in capsys.readouterr().err
    words = ["--model", str(runs[0]), "--output_dir", str(tmp_path / "report"), *FLAG, "--data"]
    status, _, error = run(scripts.evaluate.main, capsys, *words, clone)
    assert status == 2 and "several splits" in error
    assert run(scripts.evaluate.main, capsys, *words, clone, "--split", "test")[0] == 0
