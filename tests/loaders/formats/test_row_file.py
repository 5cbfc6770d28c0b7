"""Records to files of every format, and back; normalised texts."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaders.formats.records import read_file
from loaders.formats.row_file import RowFile, write_lines
from preparation.duplicates.normalized import normalize

RECORDS: list[dict[str, Any]] = [
    {
        "query": "感冒，吃什么药？",
        "doc": 'Paris, "the capital"\tof\nFrance\r\n',
        "rel": 1.0,
        "key": "a",
    },
    {"query": "q", "doc": " 两端有空格 ", "rel": 0.25, "key": None},
]
NAMES = ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.parquet", "a.jsonl.gz", "a.csv.gz"]


def write(path: Path, records: list[dict[str, Any]], **options: Any) -> None:
    with RowFile(path, ["query", "doc", "rel", "key"], **options) as file:
        for record in records:
            file.write(record)


def read(path: Path) -> list[dict[str, Any]]:
    """The records, numbers as numbers, without what is absent."""
    found = []
    for record in read_file(path):
        fields = {name: value for name, value in record.fields.items() if value is not None}
        found.append(fields | {"rel": float(fields["rel"])})
    return found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, RECORDS)
    assert read(tmp_path / name) == [RECORDS[0], {k: v for k, v in RECORDS[1].items() if v}]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_cells_of_tsv_hold_no_tabs_and_line_breaks(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", RECORDS)
    assert (tmp_path / "a.tsv").read_bytes().decode() == (
        "query\tdoc\trel\tkey\n"
        '感冒，吃什么药？\tParis, "the capital" of France  \t1.0\ta\n'
        "q\t 两端有空格 \t0.25\t\n"
    )
    write(tmp_path / "b.txt", RECORDS, header=False)
    assert (tmp_path / "b.txt").read_text("utf-8").splitlines()[1] == "q\t 两端有空格 \t0.25\t"


@pytest.mark.parametrize("name", NAMES)
def test_no_record_and_the_same_bytes_twice(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, [])
    assert list(read_file(tmp_path / name)) == []
    contents = []
    for folder in ("one", "two"):
        write(tmp_path / folder / name, RECORDS)
        contents.append((tmp_path / folder / name).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_a_file_appears_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"before")
    with pytest.raises(KeyError), RowFile(path, ["query"]) as file:
        file.write({"query": "q"})
        raise KeyError
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_unknown_formats_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.xlsx: the name must end in one of \.json, \.jsonl"):
        RowFile(tmp_path / "a.xlsx", ["query"])
    with pytest.raises(ValueError, match="must end in"):
        RowFile(tmp_path / "a.parquet.gz", ["query"])


def test_half_a_character_is_escaped(tmp_path: Path) -> None:
    with RowFile(tmp_path / "a.jsonl.gz", ["query"]) as file:
        file.write({"query": "好", "other": "\ud800"})
    text = gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).decode()
    assert json.loads(text) == {"query": "好", "other": "\ud800"}


def test_what_json_has_no_word_for_is_null(tmp_path: Path) -> None:
    with RowFile(tmp_path / "a.jsonl", ["query"]) as file:
        file.write({"query": "好", "price": float("nan"), "more": [float("inf"), 2**70]})
        file.write({"query": "q", "price": float("nan"), "other": "\ud800"})
    one, two = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert one == f'{{"query": "好", "more": [null, {2**70}]}}'
    assert json.loads(two) == {"query": "q", "other": "\ud800"}


def test_many_rows_make_several_row_groups(tmp_path: Path) -> None:
    records = [{"query": f"问{n}", "doc": "d", "rel": n / 4000, "key": "k"} for n in range(2500)]
    write(tmp_path / "a.parquet", records)
    assert read(tmp_path / "a.parquet") == records


def test_lines(tmp_path: Path) -> None:
    write_lines(tmp_path / "new" / "a.tsv", ["一", "two"])
    assert (tmp_path / "new" / "a.tsv").read_bytes() == "一\ntwo\n".encode()


TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20
).filter(lambda text: not text.isspace())


@given(query=TEXTS, doc=TEXTS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_any_text_comes_back(
    name: str, query: str, doc: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / name
    record = {"query": query, "doc": doc, "rel": 0.5, "key": "k"}
    write(path, [record])
    assert read(path) == [record]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ｈｅｌｌｏ,  WORLD!", "hello world"),
        ("高血压，怎么办？", "高血压 怎么办"),
        ("用 BERT 检索", "用BERT检索"),
        ("“什么”是《红楼梦》…", "什么 是 红楼梦"),
        ("Straße", "STRASSE"),
        ("What is it?\n", "what  is it"),
    ],
)
def test_same_texts(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("C++", "C"), ("C#", "C"), ("-5", "5"), ("3.14", "3 14"), ("a < b", "a > b")),
        *(("？", "！"), ("😀", "😡"), ("5%", "5"), ("don't", "dont"), ("高血压", "低血压")),
    ],
)
def test_different_texts(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)
