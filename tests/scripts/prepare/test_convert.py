"""prepare_data.py convert: every form into every other, and nothing lost without a word."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from loaders import ReadOptions, detect_shape, load_rows
from scripts.prepare_data import main

Records = list[dict[str, Any]]

FORMS: dict[str, Records] = {
    "scored": [
        {"query": "感冒吃什么药？", "doc": "多喝水，注意休息。", "rel": 1.0},
        {"query": "capital", "doc": 'Paris, "the" capital', "rel": 1.0},
        {"query": "感冒吃什么药？", "doc": "北京是首都。", "rel": 0.0},
        {"query": "capital", "doc": "Rome", "rel": 0.0},
    ],
    "pairs": [
        {"query": "感冒吃什么药？", "pos_doc": "多喝水。", "negatives": ["北京。", "n"]},
        {"query": "capital", "pos_doc": "Paris", "prompt": "Find: "},
    ],
    "groups": [
        {"query": "感冒吃什么药？", "pos": ["多喝水。", "休息"], "neg": ["北京。"]},
        {"query": "capital", "pos": ["Paris"], "neg": ["Rome", "Oslo"], "prompt": "Find: "},
    ],
    "hits": [
        {
            "query": "首都",
            "hits": [{"content": "北京", "label": 1.0}, {"content": "上海", "label": 0.0}],
        },
    ],
}
SUFFIXES = {"scored": ["jsonl", "json", "csv", "tsv", "parquet", "csv.gz"], "tsv": ["tsv", "txt"]}
LISTS = ["jsonl", "json", "parquet", "jsonl.gz"]


def write(path: Path, records: Records) -> str:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return str(path)


def convert(source: str | Path, to: str, output: Path, *flags: str) -> int:
    return main(["convert", "--input", str(source), "--to", to, "--output", str(output), *flags])


def rows(
    file: str | Path, shape: Literal["scored_pair", "candidate_group"], **options: Any
) -> Records:
    return list(load_rows(str(file), shape, ReadOptions(**options)))


def unique(records: Records) -> Records:
    return list({str(record): record for record in records}.values())


CASES = [
    (form, to, suffix)
    for form, to in itertools.product(FORMS, ["scored", "pairs", "groups", "hits", "tsv"])
    for suffix in SUFFIXES.get(to, LISTS)
]


@pytest.mark.parametrize(("form", "to", "suffix"), CASES)
def test_what_is_trained_on_stays_the_same(form: str, to: str, suffix: str, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", FORMS[form])
    output = tmp_path / f"out.{suffix}"
    with_prompt = any("prompt" in record for record in FORMS[form])
    assert convert(source, to, output, *(["--allow_loss"] if to == "tsv" else [])) == 0
    shape = detect_shape(str(output), ReadOptions())
    shapes = {"pairs": "positive_pair", "groups": "candidate_group", "hits": "candidate_group"}
    assert shape == shapes.get(to, "scored_pair")
    before, after = rows(source, "scored_pair"), rows(output, "scored_pair")
    if to == "tsv" and with_prompt:
        before = [row | {"prompt": None} for row in before]
    if to == "pairs" and form == "groups":  # each positive has the negatives with it
        before, after = unique(before), unique(after)
    if to in ("groups", "hits", "pairs"):  # positives first, rows of one query united
        before, after = sorted(before, key=str), sorted(after, key=str)
    assert after == before


def test_scored_pairs_keep_weight_key_and_prompt(tmp_path: Path) -> None:
    records: Records = [
        {"query": "问", "doc": "d", "rel": 0.3, "weight": 2.5, "key": "k1", "prompt": "P"},
        {"query": "q", "doc": "e", "rel": 1},
    ]
    source = write(tmp_path / "in.jsonl", records)
    for suffix in SUFFIXES["scored"]:
        assert convert(source, "scored", tmp_path / f"out.{suffix}") == 0
        found = rows(tmp_path / f"out.{suffix}", "scored_pair")
        assert found == rows(source, "scored_pair")


def test_grades_become_scores_that_are_relevances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.tsv"
    path.write_text("首都\t北京\t3\n首都\t上海\t1\n首都\t柠檬\t0\n他\t她\t0\n", "utf-8")
    threshold = ("--positive_threshold", "0.4999999")
    assert convert(path, "groups", tmp_path / "out.jsonl", *threshold) == 0
    out = capsys.readouterr().out
    assert "4 labels are read as grades: 3, 2, 1, 0 are the relevances 1, 0.75" in out
    assert '"relevance_from_scores": true, "positive_threshold": 0.4999999\n' in out
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    assert first == {
        "query": "首都",
        **{"pos": ["北京", "上海"], "neg": ["柠檬"], "pos_scores": [1, 0.5], "neg_scores": [0.25]},
    }
    assert second["pos"] == [] and second["neg_scores"] == [0.25]  # no query is left out
    again = rows(tmp_path / "out.jsonl", "candidate_group", relevance_from_scores=True)
    assert again == rows(path, "candidate_group")


LOSSES: list[tuple[str, Records, str, list[str]]] = [
    (
        "pairs",
        [
            {"query": "a", "doc": "x", "rel": 0.9, "weight": 2, "key": 7},
            {"query": "a", "doc": "y", "rel": 0},
            {"query": "b", "doc": "z", "rel": 0.3, "extra": "?"},
        ],
        "out.jsonl",
        [
            "the field extra, 1 times",
            "the weights of 1 rows",
            "the keys of 1 rows",
            "2 relevances between 0 and 1: positive from 0.5 on",
            "1 queries without a positive, with all their documents",
        ],
    ),
    (
        "pairs",
        [{"query": "a", "pos": ["x", "y"], "neg": ["n", "m"]}, {"query": "b", "pos_doc": "x"}],
        "out.csv",
        ["2 negatives, as a table holds no lists"],
    ),
    (
        "scored",
        [{"query": "a", "pos": ["x"], "neg": ["y"], "pos_scores": [9.5], "neg_scores": [-2]}],
        "out.jsonl",
        [
            "the scores of 1 rows, which are a teacher's and not relevances "
            "(unless you give --relevance_from_scores)"
        ],
    ),
    (
        "scored",
        [{"query": "a\tb", "doc": "一\n二", "rel": 1, "prompt": ""}],
        "out.tsv",
        [
            "the prompts of 1 rows, which are empty texts",
            "tabs and line breaks of 2 texts, which become spaces",
        ],
    ),
    (
        "tsv",
        [{"query": "a", "doc": "b", "rel": 1, "prompt": "P", "weight": 0.5}],
        "out.tsv",
        ["the weights of 1 rows", "the prompts of 1 rows"],
    ),
    (
        "hits",
        [{"query": "a", "doc": "b", "rel": 1, "key": "k"}],
        "out.json",
        ["the keys of 1 rows"],
    ),
]


@pytest.mark.parametrize(("to", "records", "name", "lost"), LOSSES)
def test_losses_are_told_and_refused(
    to: str,
    records: Records,
    name: str,
    lost: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = write(tmp_path / "in.jsonl", records)
    assert convert(source, to, tmp_path / name) == 2
    lines = capsys.readouterr().err.splitlines()
    at = lines.index("error: this would be lost (--allow_loss converts anyway):")
    assert lines[at + 1 :] == [f"  {phrase}" for phrase in lost]
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    assert convert(source, to, tmp_path / name, "--allow_loss") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[: len(lost) + 1] == ["lost, as allowed:", *(f"  {phrase}" for phrase in lost)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.jsonl", name])


def test_teacher_scores_stay_in_groups(tmp_path: Path) -> None:
    records: Records = [
        {"query": "a", "pos": ["x"], "neg": ["y"], "pos_scores": [9.5], "neg_scores": [-2.0]},
        {"query": "b", "pos": ["x"], "neg": []},
    ]
    source = write(tmp_path / "in.jsonl", records)
    assert convert(source, "groups", tmp_path / "out.jsonl") == 0
    found = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in found] == records


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to", "groups", "--output", "out.csv"], "groups hold lists, and a table has no place"),
        (["--to", "tsv", "--output", "out.csv"], "--to tsv writes .tsv or .txt files"),
        (["--to", "scored", "--output", "out.xls"], "the name must end in one of"),
        (["--to", "scored", "--output", "in.jsonl"], "is there already; add --overwrite"),
        (["--to", "scored", "--output", "."], "the name must end in one of"),
        (["--to", "scored", "--output", "o.json", "--label_range", "5", "0"], "label_range is"),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", FORMS["scored"])
    assert main(["convert", "--input", "in.jsonl", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_bad_rows_stop_it_or_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [*FORMS["scored"], {"query": "坏"}])
    output = tmp_path / "out.jsonl"
    assert convert(source, "groups", output) == 2
    assert f"{source}:5: no document in the fields" in capsys.readouterr().err
    assert not output.exists()
    rejected = tmp_path / "rejected.jsonl"
    flags = ["--on_bad_rows", "skip", "--rejected_file", str(rejected)]
    assert convert(source, "groups", output, *flags) == 0
    assert "1 of 5 rows are bad and skipped" in capsys.readouterr().out
    assert json.loads(rejected.read_text("utf-8"))["line"] == 5


def test_teacher_scores_and_relevances_do_not_mix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records: Records = [
        {"query": "a", "pos": ["x"], "neg": ["y"], "pos_scores": [9], "neg_scores": [1]},
        {"query": "b", "doc": "z", "rel": 0.4},
    ]
    source = write(tmp_path / "in.jsonl", records)
    assert convert(source, "groups", tmp_path / "out.jsonl") == 2
    assert "1 rows have scores of a teacher and others have relevances" in capsys.readouterr().err


def test_the_result_of_an_earlier_run_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.jsonl", FORMS["pairs"])
    assert convert(tmp_path, "groups", tmp_path / "all.jsonl") == 0
    assert convert(tmp_path, "groups", tmp_path / "all.jsonl", "--overwrite") == 2
    assert "is in a folder of the input, and would be read too" in capsys.readouterr().err
    assert convert(file, "groups", Path(file), "--overwrite") == 0  # as it is asked for


@pytest.mark.realdata
def test_real_files(realdata: Callable[[str], Path], tmp_path: Path) -> None:
    source = realdata("t2ranking_100/t2rank_100.distill.jsonl")
    assert convert(source, "hits", tmp_path / "hits.parquet") == 0
    assert convert(tmp_path / "hits.parquet", "scored", tmp_path / "back.csv") == 0
    before, after = rows(source, "scored_pair"), rows(tmp_path / "back.csv", "scored_pair")
    assert len(before) == 2005 and sorted(after, key=str) == sorted(before, key=str)
