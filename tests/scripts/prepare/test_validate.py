"""prepare_data.py validate: the report, the exit code, the page."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer

from scripts.prepare_data import main

GOOD: list[dict[str, Any]] = [
    {"query": "how to read a csv file", "pos": ["a cat sat on the mat"], "neg": ["the dog slept"]},
    {"query": "感冒吃什么药", "pos": ["多喝水，注意休息。"], "neg": ["北京是首都。"]},
]


def write(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return str(path)


def cells(output: str, first: str) -> list[str]:
    """The cells of the table row that begins with ``first``."""
    row = next(line for line in output.splitlines() if line.startswith(f"│ {first} "))
    return [cell.strip() for cell in row.strip("│").split("│")]


def test_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.jsonl", GOOD)
    assert main(["validate", "--input", file, "--document_max_length", "9"]) == 0
    out = capsys.readouterr().out
    assert "no problems found" in out and "wrong:" not in out
    assert cells(out, "a.jsonl") == ["a.jsonl", "2", "groups", "0", "2", "4", "1", "1"]
    assert cells(out, "a.jsonl: queries")[1:3] == ["6", "14"]
    assert cells(out, "a.jsonl: documents")[1:] == ["6", "11", "12", "19", "20", "20"]
    assert "document_max_length 9" in out and "50.0%" in out
    assert cells(out, "0")[1] == "2" and cells(out, "1")[1] == "2"


def test_tokens_are_those_of_the_model(
    tmp_path: Path,
    tiny_bert: Path,
    tiny_tokenizer: BertTokenizer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write(tmp_path / "a.jsonl", GOOD)
    flags = ["--query_max_length", "7", "--max_length", "14"]
    assert main(["validate", "--input", file, "--model", str(tiny_bert), *flags]) == 0
    out = capsys.readouterr().out
    queries = sorted(len(tiny_tokenizer(row["query"])["input_ids"]) for row in GOOD)
    pairs = sorted(
        len(tiny_tokenizer(row["query"], row[side][0])["input_ids"])
        for row in GOOD
        for side in ("pos", "neg")
    )
    shown = cells(out, "a.jsonl: queries")
    assert (shown[1], shown[-1]) == (str(queries[0]), str(queries[-1]))
    shown = cells(out, "a.jsonl: query and document")
    assert (shown[1], shown[-1]) == (str(pairs[0]), str(pairs[-1]))
    cut = [line for line in out.splitlines() if " max_length 14 " in line]
    assert f" {sum(length > 14 for length in pairs)} " in cut[0]
    cut = [line for line in out.splitlines() if "query_max_length 7" in line]
    assert f" {sum(length > 7 for length in queries)} " in cut[0]


def test_what_is_wrong_is_listed_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bad: list[dict[str, Any]] = [
        {"query": ""},
        {"query": "q", "pos": ["x"], "neg": ["X。"]},
        GOOD[0],
    ]
    write(Path("a.jsonl"), [*GOOD, *bad])
    assert main(["validate", "--input", "a.jsonl"]) == 1
    out = capsys.readouterr().out
    assert out[out.index("wrong:") :].splitlines() == [
        "wrong: a.jsonl: 1 of 5 rows are bad",
        '    a.jsonl:3: "query" is empty',
        "wrong: a.jsonl: a document is positive and negative for the same query, once",
        "    a.jsonl:4",
        "wrong: a.jsonl: a row repeats an earlier one, once",
        "    a.jsonl:1 and :5",
    ]


def test_a_leak_between_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = write(tmp_path / "train.jsonl", GOOD)
    dev = write(tmp_path / "dev.jsonl", [{"query": "感冒，吃什么药？", "pos_doc": "另一个答案"}])
    assert main(["validate", "--input", train, dev]) == 1
    out = capsys.readouterr().out
    assert "wrong: train.jsonl and dev.jsonl share 1 queries: one leaks into the other" in out
    assert cells(out, "train.jsonl and dev.jsonl")[1:] == ["1", "0", "0", "0"]
    dev = write(tmp_path / "dev.jsonl", [{"query": "其他", "pos_doc": "多喝水，注意休息。"}])
    assert main(["validate", "--input", train, dev]) == 0
    assert "share 1 positive documents" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "not json\n", '{"query": "q"}\n'])
def test_a_file_without_a_good_row(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_text(content, "utf-8")
    assert main(["validate", "--input", str(tmp_path / "a.jsonl")]) == 1
    assert "a.jsonl: there is no good row in it" in capsys.readouterr().out


class Text(HTMLParser):
    """Collects the text, the tags and what refers to other files."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_says_the_same_and_is_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "<script>alert(1)<&.jsonl".replace("/", "")
    file = tmp_path / name
    html = tmp_path / "page.html"
    evil = {"query": "q", "pos": ["x"], "neg": ["x"], "<img src=x onerror=alert(1)>": 1}
    bad = {"query": "q", "pos": "<b>bold</b>", "pos_scores": "<i>"}
    write(file, [*GOOD, evil, bad])
    assert main(["validate", "--input", str(file), "--html", str(html)]) == 1
    page = Text()
    page.feed(html.read_text("utf-8"))
    assert not {"script", "img", "b", "i"} & set(page.tags) and not page.references
    assert "<img src=x onerror=alert(1)> (1 times)" in page.text
    assert f"{name}:3" in page.text and "'<i>'" in page.text
    assert "positive and negative for the same query, once" in page.text
    assert "positive and negative for the same query, once" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["validate", "--input", str(file), "--html", str(html)]) == 2
    assert "is there already; add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "a.jsonl", "a.jsonl"], "input: names the same file twice"),
        (["--input", "none.jsonl"], "none.jsonl: no such file"),
        (["--input", "a.jsonl", "--model", "."], "model: .: no tokenizer can be opened there"),
        (["--input", "."], "is a folder in the BEIR layout; make training rows of it first"),
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
    write(tmp_path / "a.jsonl", GOOD)
    write(tmp_path / "corpus.jsonl", [{"_id": "1", "text": "x"}])
    (tmp_path / "qrels").mkdir()
    assert main(["validate", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


@pytest.mark.realdata
def test_real_groups(realdata: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = str(realdata("t2ranking_100/t2rank_100.jsonl"))
    model = str(realdata("bert_base_chinese_tokenizer"))
    flags = ["--model", model, "--document_max_length", "256"]
    assert main(["validate", "--input", file, *flags]) == 1
    out = capsys.readouterr().out
    assert "positive and negative for the same query, 6 times" in out
    assert cells(out, "0")[1] == "1,500" and cells(out, "1")[1] == "505"
