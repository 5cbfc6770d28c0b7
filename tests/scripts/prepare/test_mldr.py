"""prepare_data.py mldr: long documents to groups and an evaluation set."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from preparation.passages import split_passages
from scripts.prepare_data import main

CATS = (
    "Cats sleep all day long, every day.\n\nA cat drinks milk in the morning.\n\n"
    "Dogs bark at night."
)
FEVER = "感冒是常见病。\n发烧时要多喝水，也要休息。\n咳嗽可以喝蜂蜜水。"


def row(number: int, query: str, positive: str, *negatives: str) -> dict[str, Any]:
    return {
        "query_id": f"q{number}",
        "query": query,
        "positive_passages": [{"docid": f"p{number}", "text": positive}],
        "negative_passages": [
            {"docid": f"n{number}-{at}", "text": text} for at, text in enumerate(negatives)
        ],
    }


ROWS = [row(1, "what does a cat drink", CATS, FEVER), row(2, "发烧怎么办", FEVER, CATS, "x" * 30)]


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def mldr(source: Path, output: Path, *flags: str) -> int:
    return main(["mldr", "--input", str(source), "--output_dir", str(output), *flags])


def test_whole_documents_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mldr-v1.0-zh"
    write(folder / "train.jsonl.gz", ROWS)
    write(folder / "dev.jsonl", ROWS[:1])
    write(folder / "corpus.jsonl.gz", [{"docid": "c1", "text": "其他"}])
    assert mldr(folder, tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dev.jsonl",
        "train.jsonl",
    ]
    assert read(tmp_path / "out" / "train.jsonl") == [
        {"query": "what does a cat drink", "pos": [CATS], "neg": [FEVER]},
        {"query": "发烧怎么办", "pos": [FEVER], "neg": [CATS, "x" * 30]},
    ]
    assert "corpus.jsonl.gz is a corpus, which groups do not need" in capsys.readouterr().out


def test_a_name_may_have_dots(tmp_path: Path) -> None:
    for language in ("zh", "en"):
        write(tmp_path / "in" / f"mldr-v1.0-{language}.jsonl.gz", ROWS)
    assert mldr(tmp_path / "in", tmp_path / "out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"mldr-v1.0-zh.jsonl", "mldr-v1.0-en.jsonl"}


def test_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "train.jsonl", ROWS)
    assert mldr(source, tmp_path / "out", "--max_characters", "36") == 0
    first, second = read(tmp_path / "out" / "train.jsonl")
    assert (first["pos"], first["neg"]) == ([CATS[:35]], [FEVER])  # no line break at the end
    assert second["neg"] == [CATS[:35], "x" * 30]
    assert "2 documents were cut at 36 characters" in capsys.readouterr().out


def test_the_best_passage_of_each_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "train.jsonl", ROWS)
    assert mldr(source, tmp_path / "out", "--passages", "40") == 0
    first, second = read(tmp_path / "out" / "train.jsonl")
    assert first["pos"] == ["A cat drinks milk in the morning."]
    assert second["pos"] == [FEVER] and len(FEVER) <= 40  # it is one passage
    assert "3 documents have no passage with a word" in capsys.readouterr().out
    assert mldr(source, tmp_path / "two", "--passages", "40", "--best", "2") == 0
    (first, _) = read(tmp_path / "two" / "train.jsonl")
    assert first["pos"] == [
        "Cats sleep all day long, every day.",
        "A cat drinks milk in the morning.",
    ]


def test_beir_folder_of_whole_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "in" / "dev.jsonl", ROWS)
    corpus = [{"docid": "p1", "text": CATS}, {"docid": "c", "text": "其他"}]
    write(tmp_path / "in" / "corpus.jsonl", corpus)
    assert mldr(tmp_path / "in", tmp_path / "out", "--beir") == 0
    beir = tmp_path / "out" / "beir"
    texts = {each["_id"]: each["text"] for each in read(beir / "corpus.jsonl")}
    assert list(texts) == ["p1", "c", "n1-0", "p2", "n2-0", "n2-1"]
    assert texts["p1"] == CATS and texts["p2"] == FEVER
    assert [each["_id"] for each in read(beir / "queries.jsonl")] == ["q1", "q2"]
    assert (beir / "qrels" / "dev.tsv").read_text("utf-8").splitlines() == [
        "query-id\tcorpus-id\tscore",
        *("q1\tp1\t1", "q1\tn1-0\t0"),
        *("q2\tp2\t1", "q2\tn2-0\t0", "q2\tn2-1\t0"),
    ]
    assert "4 documents of rows were not in the corpus files" in capsys.readouterr().out


def test_beir_folder_of_passages_agrees_with_the_groups(tmp_path: Path) -> None:
    source = write(tmp_path / "dev.jsonl", ROWS)
    assert mldr(source, tmp_path / "out", "--passages", "24", "--beir") == 0
    beir = tmp_path / "out" / "beir"
    texts = {each["_id"]: each["text"] for each in read(beir / "corpus.jsonl")}
    for identifier, text in (("p1", CATS), ("p2", FEVER)):
        own = [passage for each, passage in texts.items() if each.startswith(f"{identifier}#")]
        assert own == split_passages(text, 24) and len(own) > 1
    queries = {each["_id"]: each["text"] for each in read(beir / "queries.jsonl")}
    judged: dict[str, dict[str, list[str]]] = {}
    for line in (beir / "qrels" / "dev.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        group = judged.setdefault(query, {"neg": [], "pos": []})
        group["pos" if grade == "1" else "neg"].append(texts[document])
    groups = [{"query": queries[query], **group} for query, group in judged.items()]
    assert groups == read(tmp_path / "out" / "dev.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive_passages": []}, '"positive_passages" is empty or missing'),
        ({"positive_passages": "x"}, "\"positive_passages\" must be a list, got 'x'"),
        ({"positive_passages": ["x"]}, "\"positive_passages[0]\" must be an object, got 'x'"),
        ({"negative_passages": [{"docid": "a"}]}, '"negative_passages[0].text" must be a text'),
        ({"negative_passages": [{"docid": "a b", "text": "x"}]}, "an id may not hold spaces"),
        ({"negative_passages": [{"docid": "p1", "text": "x"}]}, "'p1' is both positive and neg"),
        ({"query": " "}, '"query" is empty'),
        ({"query_id": None}, '"query_id" must be a text, got None'),
    ],
)
def test_bad_rows(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [ROWS[1], ROWS[0] | change])
    assert mldr(source, tmp_path / "out", "--beir") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {source}:2: ") and message in line
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_one_id_for_two_things(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in.jsonl", [ROWS[0], ROWS[0]])
    assert mldr(source, tmp_path / "out", "--beir") == 2
    assert "the query_id q1 occurs twice in in" in capsys.readouterr().err
    source = write(tmp_path / "in.jsonl", [ROWS[0], row(1, "other", "text") | {"query_id": "q9"}])
    assert mldr(source, tmp_path / "out", "--beir") == 2
    assert "the document p1 has two different texts" in capsys.readouterr().err


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a" / "train.jsonl", ROWS)
    assert mldr(source, tmp_path / "out", "--best", "2") == 2
    assert "error: best: chooses among passages" in capsys.readouterr().err
    write(tmp_path / "b" / "train.jsonl", ROWS)
    assert mldr(tmp_path, tmp_path / "out") == 2
    assert "would both become train.jsonl" in capsys.readouterr().err
    corpus = write(tmp_path / "c" / "corpus.jsonl", [{"docid": "d", "text": "t"}])
    assert mldr(corpus, tmp_path / "out") == 2
    assert "there is no file of rows with a query in it" in capsys.readouterr().err
    assert mldr(source, tmp_path / "out", "--passages", "10", "--max_characters", "10") == 2
    assert "max_characters: cannot be combined with passages" in capsys.readouterr().err
    assert mldr(source, tmp_path / "out") == 0
    assert mldr(source, tmp_path / "out") == 2
    assert "already holds train.jsonl; add --overwrite" in capsys.readouterr().err
    source.replace(source.with_name("dev.jsonl"))
    for told in ("", f"{tmp_path / 'out'}: files of earlier runs stay: 'train.jsonl'; remove"):
        assert mldr(tmp_path / "a", tmp_path / "out", "--overwrite") == 0
        assert told in (out := capsys.readouterr().out) and ("stay" in out) == bool(told)


@pytest.mark.realdata
def test_a_real_row(realdata: Callable[[str], Path], tmp_path: Path) -> None:
    source = realdata("mldr_sample")
    assert mldr(source, tmp_path, "--passages", "1000", "--beir") == 0
    (group,) = read(tmp_path / "mldr_en_dev_row0.jsonl")
    assert "The syntax for this shorthand is below:\n\n$c = $a ?: $b;" in group["pos"][0]
    assert len(group["neg"]) == 7
    assert all(len(text) <= 1000 for text in group["pos"] + group["neg"])
    ids = [each["_id"] for each in read(tmp_path / "beir" / "corpus.jsonl")]
    assert len(ids) == len(set(ids)) and "doc-en-9633#0" in ids
