"""prepare_data.py beir: judged documents to groups, training rows to an evaluation set."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loaders import ReadOptions, load_rows
from scripts.prepare_data import main

DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "d1", "title": "首都", "text": "北京是中国的首都。"},
    {"_id": "d2", "title": "", "text": "Paris"},
    {"_id": "d3", "text": "not judged"},
    {"_id": "d4", "title": None, "text": "上海"},
]
QUERIES = [{"_id": "q1", "text": "中国的首都"}, {"_id": "q2", "text": "France?"}]


def lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    lines(folder / "corpus.jsonl", DOCUMENTS)
    lines(folder / "queries.jsonl", QUERIES)
    judge(folder, "q1\td1\t1", "q1\td4\t0", "q2\td2\t1")
    return folder


def judge(folder: Path, *judgements: str, split: str = "train") -> None:
    text = "\n".join(["query-id\tcorpus-id\tscore", *judgements]) + "\n"
    (folder / "qrels" / f"{split}.tsv").write_text(text, "utf-8")


def beir(source: Path, output: Path, *flags: str) -> int:
    return main(["beir", "--input", str(source), "--output_dir", str(output), *flags])


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_groups(folder: Path, tmp_path: Path) -> None:
    judge(folder, "q2\td1\t1", split="test")
    assert beir(folder, tmp_path / "out") == 0
    assert read(tmp_path / "out" / "train.jsonl") == [
        {"query": "中国的首都", "pos": ["首都 北京是中国的首都。"], "neg": ["上海"]},
        {"query": "France?", "pos": ["Paris"], "neg": []},
    ]
    assert read(tmp_path / "out" / "test.jsonl")[0]["pos"] == ["首都 北京是中国的首都。"]
    assert beir(folder, tmp_path / "one", "--split", "test") == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["test.jsonl"]


def test_grades(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge(folder, "q1\td1\t3", "q1\td4\t1", "q1\td2\t0", "q2\td4\t0")
    assert beir(folder, tmp_path / "out", "--min_grade", "2") == 0
    first, second = read(tmp_path / "out" / "train.jsonl")
    assert (first["pos_scores"], first["neg_scores"]) == ([1.0], [1 / 3, 0.0])
    assert (second["pos"], second["neg_scores"]) == ([], [0.0])
    advice = 'to train on them set "relevance_from_scores": true, "positive_threshold": '
    threshold = float(capsys.readouterr().out.strip().partition(advice)[2])
    judge(folder, "q1\td1\t3", "q2\td2\t2")
    assert beir(folder, tmp_path / "out", "--min_grade", "2", "--overwrite") == 0
    options = ReadOptions(relevance_from_scores=True, positive_threshold=threshold)
    # What is a positive by its grade is one in training.
    assert len(load_rows(str(tmp_path / "out" / "train.jsonl"), "positive_pair", options)) == 2


def test_no_document_of_the_least_grade(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(folder, "q1\td1\t3", "q1\td4\t1")
    assert beir(folder, tmp_path / "out", "--min_grade", "5") == 2
    assert "no query has a document of grade 5 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--positive_threshold", "1.0"],
        ["--label_range", "0", "3"],
        ["--on_bad_rows", "skip"],
        ["--columns", '{"a": "query"}'],
        ["--rejected_file", "x"],
        ["--grades", "3"],
    ],
)
def test_flags_that_read_rows_are_for_the_other_way(
    flags: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beir(folder, tmp_path / "out", *flags) == 2
    name = flags[0].removeprefix("--")
    assert f"{name}: is for the way to BEIR only" in capsys.readouterr().err


def test_judgements_of_other_documents_are_not_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids are d1, d2, ... in each set."""
    for split, text in (("dev", "first"), ("test", "second")):
        lines(tmp_path / f"{split}.jsonl", [{"query": "q", "pos_doc": text}])
    flags = ["--to_beir", "--overwrite", "--split"]
    assert beir(tmp_path / "dev.jsonl", tmp_path / "out", *flags, "dev") == 0
    assert beir(tmp_path / "test.jsonl", tmp_path / "out", *flags, "test") == 2
    assert "dev.tsv judges documents that would be replaced" in capsys.readouterr().err
    assert read(tmp_path / "out" / "corpus.jsonl")[0]["text"] == "first"
    assert beir(tmp_path / "test.jsonl", tmp_path / "out", *flags, "dev") == 0
    assert read(tmp_path / "out" / "corpus.jsonl")[0]["text"] == "second"


def test_grades_below_zero_are_negatives_without_relevance(folder: Path, tmp_path: Path) -> None:
    """Spam by TREC's grades: judged, and not relevant; a score is never below 0."""
    judge(folder, "q1\td1\t2", "q1\td4\t-2", "q2\td2\t1", "q2\td1\t-1")
    assert beir(folder, tmp_path / "out") == 0
    first, second = read(tmp_path / "out" / "train.jsonl")
    assert (first["neg"], first["neg_scores"]) == (["上海"], [0.0])
    assert (second["pos"], second["pos_scores"]) == (["Paris"], [0.5])


def test_fractions_are_grades(folder: Path, tmp_path: Path) -> None:
    """As in evaluation, whatever is above 0 is relevant."""
    judge(folder, "q1\td1\t0.5", "q1\td4\t0")
    assert beir(folder, tmp_path / "out") == 0
    assert read(tmp_path / "out" / "train.jsonl")[0]["pos"] == ["首都 北京是中国的首都。"]


def test_the_query_itself_is_no_negative(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines(
        folder / "queries.jsonl", [{"_id": "d3", "text": "not judged"}, {"_id": "d2", "text": "?"}]
    )
    judge(folder, "d3\td1\t1", "d3\td3\t0", "d3\td4\t0", "d2\td2\t1")
    assert beir(folder, tmp_path / "out") == 0
    assert (
        "1 documents with the id of their query are not used as its negatives"
        in capsys.readouterr().out
    )
    first, second = read(tmp_path / "out" / "train.jsonl")
    assert first["neg"] == ["上海"]
    assert second["pos"] == ["Paris"]  # judged relevant: the ids are the same by chance
    assert beir(folder, tmp_path / "all", "--keep_identical_ids") == 0
    assert read(tmp_path / "all" / "train.jsonl")[0]["neg"] == ["not judged", "上海"]


def test_queries_without_a_positive_are_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(folder, "q1\td1\t1", "q2\td4\t0")
    assert beir(folder, tmp_path / "out") == 0
    assert len(read(tmp_path / "out" / "train.jsonl")) == 1
    assert "1 queries were left out: none of their documents is" in capsys.readouterr().out


def test_unknown_ids(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    judge(folder, "q1\td1\t1", "q1\td99\t1", "q98\td1\t1")
    assert beir(folder, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "train.tsv: 1 judgements name 1 queries that queries.jsonl does not have: 'q98'" in error
    assert "1 judgements name 1 documents that corpus.jsonl does not have: 'd99'" in error
    assert beir(folder, tmp_path / "out", "--allow_unknown") == 0
    assert "does not have: 'd99'; they are left out" in caplog.text
    assert [row["query"] for row in read(tmp_path / "out" / "train.jsonl")] == ["中国的首都"]


def test_packed_files(folder: Path, tmp_path: Path) -> None:
    path = folder / "corpus.jsonl"
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert beir(folder, tmp_path / "out") == 0
    assert len(read(tmp_path / "out" / "train.jsonl")) == 2


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        (["q1\td1\tgood"], "train.tsv:2: the score must be a number up to 1e+30, got 'good'"),
        (["q1\td4\t0"], "train.jsonl: no query has a document of grade 1"),
    ],
)
def test_bad_judgements(
    judgements: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge(folder, *judgements)
    assert beir(folder, tmp_path / "out") == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out").glob("*"))


def test_back_and_forth(folder: Path, tmp_path: Path) -> None:
    assert beir(folder, tmp_path / "groups") == 0
    source = tmp_path / "groups" / "train.jsonl"
    assert beir(source, tmp_path / "back", "--to_beir", "--split", "dev") == 0
    back = tmp_path / "back"
    texts = [(row["_id"], row["text"]) for row in read(back / "corpus.jsonl")]
    assert texts == [("d1", "首都 北京是中国的首都。"), ("d2", "上海"), ("d3", "Paris")]
    assert (back / "qrels" / "dev.tsv").read_text("utf-8").splitlines()[1:] == [
        "q1\td1\t1",
        "q1\td2\t0",
        "q2\td3\t1",
    ]
    assert beir(back, tmp_path / "again") == 0
    assert read(tmp_path / "again" / "dev.jsonl") == read(source)


def test_grades_are_whole_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("一", "a", 0.75), ("一", "b", 0.5), ("二", "a", 0.0), ("一", "a", 0.75)]
    lines(tmp_path / "in.jsonl", [{"query": q, "doc": d, "rel": rel} for q, d, rel in rows])
    assert beir(tmp_path / "in.jsonl", tmp_path / "out", "--to_beir") == 0
    out = capsys.readouterr().out
    assert "2 documents, 2 queries, 3 judgements with grades up to 4" in out
    assert "1 judgements were duplicates and are written once" in out
    qrels = (tmp_path / "out" / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]
    assert qrels == ["q1\td1\t3", "q1\td2\t2", "q2\td1\t0"]
    flags = ["--to_beir", "--grades", "2", "--overwrite"]
    assert beir(tmp_path / "in.jsonl", tmp_path / "out", *flags) == 2
    lost = "what lies between the grades of 2 relevances, which are rounded"
    assert lost in capsys.readouterr().err
    assert beir(tmp_path / "in.jsonl", tmp_path / "out", *flags, "--allow_loss") == 0
    assert lost in capsys.readouterr().out
    lines(tmp_path / "in.jsonl", [{"query": "q", "doc": "d", "rel": 0.123}])
    assert beir(tmp_path / "in.jsonl", tmp_path / "out2", "--to_beir") == 2
    assert "the relevances (0.123, ...) are not multiples" in capsys.readouterr().err


def test_two_grades_of_one_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"query": "问", "pos": ["a"], "neg": ["b"]},
        {"query": "问", "pos": ["b"]},
    ]
    lines(tmp_path / "in.jsonl", rows)
    assert beir(tmp_path / "in.jsonl", tmp_path / "out", "--to_beir") == 2
    message = (
        f"1 documents have two grades for one query, the first for '问' ({tmp_path}/in.jsonl:1)"
    )
    assert message in capsys.readouterr().err
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize("flags", [["--grades", "3"], ["--to_beir", "--min_grade", "2"]])
def test_flags_of_the_other_way(
    flags: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert beir(folder, tmp_path / "out", *flags) == 2
    assert "BEIR only" in capsys.readouterr().err


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "split", "groups", "positives"),
    [("scifact", "test", 300, 339), ("cn_medical_qa", "dev", 699, 699)],
)
def test_real_sets(
    name: str,
    split: str,
    groups: int,
    positives: int,
    realdata: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    assert beir(realdata(name), tmp_path, "--split", split) == 0
    made = read(tmp_path / f"{split}.jsonl")
    assert (len(made), sum(len(row["pos"]) for row in made)) == (groups, positives)
