"""Whatever a file holds: rows, or the one error that users are promised."""

import json
import unicodedata
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loaders import ReadOptions, Shape, load_rows
from loaders.formats import json_text
from loaders.formats.json_text import JsonArray
from loaders.formats.opening import BrokenFile
from loaders.formats.records import Record
from loaders.parsing.fields import ALIASES, RowError
from loaders.parsing.row_parser import RowParser

NAMES = st.sampled_from([name for names in ALIASES.values() for name in names])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["1", "3", 1, 0.5, "北京", [1.0], ["p"]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(NAMES | st.text(max_size=3), VALUES, max_size=6)
OPTIONS = st.builds(
    ReadOptions,
    label_map=st.none() | st.just({"1": 1.0, "北京": 0.5}),
    relevance_from_scores=st.booleans(),
    needs_negatives=st.booleans(),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
WORDS = TEXTS.filter(lambda text: not text.isspace())
SHAPES: list[Shape] = ["scored_pair", "positive_pair", "candidate_group"]


@given(st.one_of(RECORDS, VALUES), OPTIONS, st.booleans(), st.booleans())
def test_a_record_is_a_row_or_a_row_error(
    record: Any, options: ReadOptions, from_text: bool, default_labels: bool
) -> None:
    parser = RowParser(options)
    try:
        row = parser.parse(Record(1, record, from_text, default_labels))
    except RowError as error:
        assert str(error)
        assert not {unicodedata.category(one) for one in str(error)} & {"Cc", "Cs", "Zl", "Zp"}
    else:
        assert row.query.strip()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(RECORDS.map(json.dumps) | st.binary(max_size=20), max_size=4))
def test_a_file_is_rows_or_a_value_error(tmp_path: Path, lines: list[str | bytes]) -> None:
    path = tmp_path / "a.jsonl"
    raw = (line if isinstance(line, bytes) else line.encode() for line in lines)
    path.write_bytes(b"\n".join(raw))
    for shape in SHAPES:
        try:
            rows = load_rows(str(path), shape, ReadOptions(on_bad_rows="skip"))
        except ValueError as error:
            assert str(path) in str(error) or "no row is left" in str(error)
        else:
            assert [rows[index]["query"] for index in range(len(rows))]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(
        st.fixed_dictionaries(
            {"query": WORDS, "pos": st.lists(WORDS, min_size=1), "neg": st.lists(WORDS)}
        ),
        min_size=1,
        max_size=5,
    )
)
def test_groups_come_back_as_they_were(tmp_path: Path, groups: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(groups, ensure_ascii=False), encoding="utf-8", newline="")
    rows = load_rows(str(path), "candidate_group", ReadOptions())
    assert [{name: row[name] for name in ("query", "pos", "neg")} for row in rows] == groups
    pairs = load_rows(str(path), "positive_pair", ReadOptions())
    wanted = [(group["query"], text) for group in groups for text in group["pos"]]
    found = [(pairs[index]["query"], pairs[index]["pos_doc"]) for index in range(len(pairs))]
    assert found == wanted


@pytest.fixture(scope="module")
def tiny_chunks() -> Iterator[None]:
    """Make every element lie across the borders of what is read at a time."""
    with patch.object(json_text, "_CHUNK", 3):
        yield


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 0, 3]), st.booleans())
def test_arrays_in_pieces(
    tiny_chunks: None, values: list[Any], indent: int | None, ascii: bool
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii)
    found = [value for _, value in JsonArray(StringIO(text))]
    assert json.dumps(found) == json.dumps(values)


@given(st.lists(RECORDS, min_size=1, max_size=3), st.data())
def test_arrays_cut_off_are_broken(tiny_chunks: None, values: list[Any], data: Any) -> None:
    text = json.dumps(values)
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(BrokenFile):
        list(JsonArray(StringIO(text[:cut])))
