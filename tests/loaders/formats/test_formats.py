"""Every file format gives exactly the rows that were written, Chinese and English."""

import csv
import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaders import ReadOptions, detect_shape, load_rows

RECORDS = [
    {"query": "什么是向量检索？", "doc": "用向量找相近的文本。", "rel": 1, "weight": 2},
    {"query": "what is a reranker?", "doc": 'It "orders", it does\tnot find.', "rel": 0.25},
    {
        "query": "什么是向量检索？",
        "doc": "今天天气很好，😀\u2028适合散步。",
        "rel": 0.0,
        "key": "k3",
    },
]
ROWS = [
    {"weight": 1.0, "key": None, "prompt": None} | RECORDS[0] | {"rel": 1.0, "weight": 2.0},
    {"weight": 1.0, "key": None, "prompt": None} | RECORDS[1],
    {"weight": 1.0, "key": None, "prompt": None} | RECORDS[2],
]


def write_array(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(records, ensure_ascii=False, indent=2), encoding="utf-8")


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


def write_lines_gz(path: Path, records: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(record) + "\n\n" for record in records)


def write_csv(path: Path, records: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["query", "doc", "rel", "weight", "key"])
        writer.writeheader()
        writer.writerows(records)


def write_tsv(path: Path, records: list[dict[str, Any]]) -> None:
    names = ["key", "rel", "doc", "query", "weight"]
    lines = ["\t".join(str(record.get(name, "")) for name in names) for record in records]
    path.write_text("\n".join(["\t".join(names), *lines]), encoding="utf-8")


def write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    names = ["query", "doc", "rel", "weight", "key"]
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in records])
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.json", write_array),
        ("rows.json", write_lines),
        ("rows.jsonl", write_lines),
        ("rows.ndjson", write_lines),
        ("rows.jsonl.gz", write_lines_gz),
        ("rows.JSONL", write_lines),
        ("rows.csv", write_csv),
        ("rows.parquet", write_parquet),
    ],
)
def test_formats(
    tmp_path: Path, name: str, write: Callable[[Path, list[dict[str, Any]]], None]
) -> None:
    write(tmp_path / name, RECORDS)
    assert list(load_rows(str(tmp_path / name), "scored_pair", ReadOptions())) == ROWS
    assert detect_shape(str(tmp_path / name), ReadOptions()) == "scored_pair"


def test_tsv_with_header_takes_quotes_as_they_are(tmp_path: Path) -> None:
    records = [RECORDS[0], {**RECORDS[1], "doc": 'a "b'}, RECORDS[2]]
    write_tsv(tmp_path / "rows.tsv", records)
    rows = list(load_rows(str(tmp_path / "rows.tsv"), "scored_pair", ReadOptions()))
    assert rows == [ROWS[0], {**ROWS[1], "doc": 'a "b'}, ROWS[2]]


def test_headerless_grades(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "grades.tsv"
    path.write_text("首都\t北京\t3\n首都\t上海\t0\ncapital\tParis\t2\n", encoding="utf-8")
    caplog.set_level(logging.INFO, "loaders")
    for _ in range(2):  # built, then reused
        caplog.clear()
        rows = load_rows(str(path), "scored_pair", ReadOptions())
        assert rows["rel"] == [1.0, 0.25, 0.75]
        assert [record.getMessage() for record in caplog.records] == [
            '3 labels mapped by the default label_map {"3": 1.0, "2": 0.75, "1": 0.5, "0": 0.25}; '
            "give label_map or label_range to change that"
        ]
    own = ReadOptions(label_map={"0": 0, "2": 0.5, "3": 1})
    assert load_rows(str(path), "scored_pair", own)["rel"] == [1.0, 0.0, 0.5]
    ranged = ReadOptions(label_range=(0, 4))
    assert load_rows(str(path), "scored_pair", ranged)["rel"] == [0.75, 0.0, 0.5]


def test_headerless_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "sts.csv"
    path.write_text('"A, b.",A b.,0.8\n一,二,1\n', encoding="utf-8")
    rows = load_rows(str(path), "scored_pair", ReadOptions())
    assert rows["rel"] == [0.8, 1.0]
    assert rows["query"] == ["A, b.", "一"]


def test_headerless_two_columns_are_positive_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("怎么重置密码\t点击忘记密码\nhow to reset\tclick here\n", encoding="utf-8")
    pairs = load_rows(str(path), "positive_pair", ReadOptions())
    assert [pairs[at]["pos_doc"] for at in range(len(pairs))] == ["点击忘记密码", "click here"]
    assert detect_shape(str(path), ReadOptions()) == "positive_pair"


@pytest.mark.parametrize(
    "record",
    [
        {"query": "q", "document": "d", "score": 0.5},
        {"query": "q", "content": "d", "label": 0.5},
        {"query": "q", "passage": "d", "relevance": 0.5},
        {"query": "q", "text": "d", "rel": 0.5},
        {"sentence1": "q", "sentence2": "d", "score": 0.5},
        {"text1": "q", "text2": "d", "label": 0.5},
    ],
)
def test_aliases(tmp_path: Path, record: dict[str, Any]) -> None:
    write_array(tmp_path / "rows.json", [record])
    (row,) = load_rows(str(tmp_path / "rows.json"), "scored_pair", ReadOptions())
    assert (row["query"], row["doc"], row["rel"]) == ("q", "d", 0.5)


def test_bom_and_crlf(tmp_path: Path) -> None:
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\r\n" for record in RECORDS)
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert list(load_rows(str(tmp_path / "a.jsonl"), "scored_pair", ReadOptions())) == ROWS
    table = "\ufeffquery,doc,rel\r\n北京,首都,1\r\nParis,capital,0.5\r\n"
    (tmp_path / "b.csv").write_bytes(table.encode())
    rows = load_rows(str(tmp_path / "b.csv"), "scored_pair", ReadOptions())
    assert rows["query"] == ["北京", "Paris"]
    (tmp_path / "c.tsv").write_bytes(table.replace(",", "\t").encode())
    rows = load_rows(str(tmp_path / "c.tsv"), "scored_pair", ReadOptions())
    assert rows["rel"] == [1.0, 0.5]
    array = json.dumps(RECORDS, ensure_ascii=False, indent=1).replace("\n", "\r\n")
    (tmp_path / "d.json").write_bytes(b"\xef\xbb\xbf" + array.encode())
    assert list(load_rows(str(tmp_path / "d.json"), "scored_pair", ReadOptions())) == ROWS


def test_folder_and_several_files_with_mixed_scores(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    write_lines(folder / "b.jsonl", [{"query": "q", "doc": "b", "rel": 1}])
    write_lines(folder / "sub" / "c.jsonl", [{"query": "q", "doc": "c", "rel": 0.5}])
    write_lines(folder / ".hidden" / "x.jsonl", [{"query": "q", "doc": "x", "rel": 0.5}])
    write_parquet(folder / "a.parquet", [{"query": "q", "doc": "a", "rel": 0}])
    (folder / "LICENSE").write_text("MIT")
    rows = load_rows(str(folder), "scored_pair", ReadOptions())
    assert rows["doc"] == ["a", "b", "c"]
    assert rows["rel"] == [0.0, 1.0, 0.5]
    both = [str(folder / "sub" / "c.jsonl"), str(folder / "b.jsonl")]
    assert load_rows(both, "scored_pair", ReadOptions())["doc"] == ["c", "b"]
