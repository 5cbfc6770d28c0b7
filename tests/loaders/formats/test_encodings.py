"""A file in another encoding, or none: one sentence says which it is, or where it is damaged."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from loaders import ReadOptions, load_rows

GOOD = '{"query": "好", "doc": "d", "rel": 1}\n'


def error_of(file: Path, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        load_rows(str(file), "scored_pair", ReadOptions(**options))
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-16LE", "UTF-16BE", "UTF-32"])
def test_other_encodings(tmp_path: Path, name: str, encoding: str) -> None:
    text = {
        "a.jsonl": '{"query": "中文查询", "doc": "文档内容", "rel": 1}\n' * 9,
        "a.json": '[{"query": "中文查询", "doc": "文档内容", "rel": 1}]',
        "a.csv": "query,doc,rel\n中文查询,文档内容,1\n",
        "a.tsv": "中文查询\t文档内容\t1\n",
    }[name]
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    assert error_of(path, on_bad_rows="skip") == (
        f"{path} is encoded in {encoding}, not in UTF-8; convert it: "
        f"iconv -f {encoding} -t UTF-8 '{path}' > utf8_{name}"
    )


TRADITIONAL = "今天天氣很好，我們去公園散步。感冒發燒應該吃什麼藥？多喝水，注意休息。"


@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        ("中文查询", "GB18030", "GB18030"),
        (TRADITIONAL, "GB18030", "GB18030"),
        (TRADITIONAL, "Big5", "Big5"),
        ("東京はどこにありますか", "EUC-JP", "GB18030"),  # hence a guess
        ("für Zürich, schöne Grüße", "latin-1", ""),  # decodes as GB18030, by accident
        ("déjà vu à Paris", "latin-1", ""),
    ],
)
def test_an_encoding_is_named_as_a_guess(
    tmp_path: Path, text: str, encoding: str, named: str
) -> None:
    path = tmp_path / "a.jsonl"
    row = json.dumps({"query": text, "doc": text, "rel": 1}, ensure_ascii=False) + "\n"
    path.write_bytes((row * 3).encode(encoding))
    if named:
        assert error_of(path) == (
            f"{path} is not in UTF-8 but probably in {named}, which is a guess: Shift-JIS and EUC "
            "look alike; convert it, with its encoding after -f: "
            f"iconv -f {named} -t UTF-8 '{path}' > utf8_a.jsonl"
        )
    else:
        assert "is not UTF-8; repair the line, or convert the file" in error_of(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04" + bytes(99), "a zip file, as Excel writes them"),
        (b"PAR1" + bytes(99), "a Parquet file"),
        (gzip.compress(GOOD.encode(), mtime=0), "packed by gzip"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    for name in ("a.csv", "a.jsonl", "a.txt"):
        (tmp_path / name).write_bytes(content)
        assert error_of(tmp_path / name) == (
            f"{tmp_path / name} is {kind}, not text; save it as text, or give it the suffix of its "
            "format"
        )


def test_a_damaged_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = '{"query": "北京在哪里", "doc": "在 north", "rel": 1}\n'.encode()
    path.write_bytes(line * 40_000 + line.replace("在".encode(), b"\xe5\x9c", 1) + line)
    remedy = "repair the line, or convert the file if all of it is in another encoding"
    assert error_of(path) == f"{path}:40001: byte 0xe5 is not UTF-8; {remedy}"
    pair = '{"query": "北京", "doc": "天气", "rel": 1}\n'.encode()  # decodes as GB18030 too
    path.write_bytes(pair * 3 + pair.replace(b"\xe5", b"\xb1"))
    assert error_of(path) == f"{path}:4: byte 0xb1 is not UTF-8; {remedy}"
    path.write_bytes(line + line[: line.index("哪".encode()) + 1])
    assert error_of(path) == f"{path}:2: the file ends within a character; repair the line"
    path.write_bytes('{"query": "café", "doc": "d", "rel": 1}\n'.encode("latin-1"))
    assert error_of(path) == f"{path}:1: byte 0xe9 is not UTF-8; {remedy}"
