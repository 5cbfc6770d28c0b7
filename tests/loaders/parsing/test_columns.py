"""Columns by their names and by ``columns``, in every format, against what they mean."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.typed_values import one_line
from loaders import ReadOptions, Shape, load_rows, load_rows_in_place

QA: list[dict[str, Any]] = [
    {"question": "谁写了红楼梦", "answers": {"text": ["曹雪芹", "曹霑"], "answer_start": [0, 3]}},
    {"question": "who wrote hamlet", "answers": {"text": ["Shakespeare"], "answer_start": [1]}},
]
MAP = {"question": "query", "answers.text": "pos"}


def write(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def read(file: str, shape: Shape, **options: Any) -> list[dict[str, Any]]:
    rows = load_rows(file, shape, ReadOptions(**options))
    return [rows[at] for at in range(len(rows))]


def groups(file: str, **options: Any) -> list[tuple[str, list[str], list[str]]]:
    rows = read(file, "candidate_group", **options)
    return [(row["query"], row["pos"], row["neg"]) for row in rows]


def error_of(file: str, **options: Any) -> str:
    with pytest.raises(ValueError) as raised:
        read(file, "candidate_group", **options)
    return str(raised.value)


def saved(folder: Path) -> str:
    datasets.Dataset.from_list(QA).save_to_disk(str(folder))
    return str(folder)


def test_columns_in_every_format_that_holds_lists(tmp_path: Path) -> None:
    wanted: list[Any] = [(QA[0]["question"], ["曹雪芹", "曹霑"], [])]
    wanted.append((QA[1]["question"], ["Shakespeare"], []))
    (tmp_path / "a.json").write_text(json.dumps(QA))
    pq.write_table(pa.Table.from_pylist(QA), tmp_path / "a.parquet")
    files = [write(tmp_path / "a.jsonl", *QA), *map(str, tmp_path.glob("a.[jp]*[nt]"))]
    assert len(files) >= 3
    for file in [*files, saved(tmp_path / "saved")]:
        assert groups(file, columns=MAP) == wanted, file
    in_place = load_rows_in_place(files[0], "candidate_group", ReadOptions(columns=MAP))
    assert [in_place[at]["pos"] for at in range(2)] == [pos for _, pos, _ in wanted]


@pytest.mark.parametrize(("ending", "tab"), [("csv", ","), ("tsv", "\t")])
def test_a_header_of_columns(ending: str, tab: str, tmp_path: Path) -> None:
    text = "id,question,context.text,ok\n7,q,yes,True\n8,q,no,false\n".replace(",", tab)
    (tmp_path / f"a.{ending}").write_text(text)
    columns = {"question": "query", "context.text": "doc", "ok": "label"}
    assert groups(str(tmp_path / f"a.{ending}"), columns=columns) == [("q", ["yes"], ["no"])]


@pytest.mark.parametrize(
    ("record", "columns", "wanted"),
    [
        # The name of a column means nothing beside what it is said to be.
        ({"query": "d", "doc": "q", "rel": 1}, {"query": "doc", "doc": "query"}, ("q", ["d"], [])),
        ({"query": "12", "asked": "q", "text": "t"}, {"asked": "query", "text": "pos"},
         ("q", ["t"], [])),
        ({"query": "q", "pos": ["p"], "hits": 3, "gold": "g"}, {"gold": "pos_doc"},
         ("q", ["g"], [])),
        # A column whose name has the dot comes first, and the longest name of one on the way.
        ({"q.t": "q", "q": {"t": "no"}, "pos": "p"}, {"q.t": "query"}, ("q", ["p"], [])),
        ({"query": "q", "a.b": {"c": "p"}, "a": {"b": {"c": "no"}}}, {"a.b.c": "pos"},
         ("q", ["p"], [])),
        # MS MARCO, natural questions with several answers, negatives by number.
        ({"query": "q", "passages": {"is_selected": [0, 1], "passage_text": ["n", "p"]}},
         {"passages.passage_text": "doc", "passages.is_selected": "rel"}, ("q", ["p"], ["n"])),
        ({"query": "q", "a": [{"text": ["x", "y"]}, {"text": ["z"]}]}, {"a.text": "positives"},
         ("q", ["x", "y", "z"], [])),
        ({"query": "q", "pos": ["p"], "b": "2", "a": "1", "negative_1": "hidden"},
         {"a": "negative_1", "b": "negative_2"}, ("q", ["p"], ["1", "2"])),
    ],
)  # fmt: skip
def test_what_columns_mean(
    record: dict[str, Any], columns: dict[str, str], wanted: Any, tmp_path: Path
) -> None:
    assert groups(write(tmp_path / "a.jsonl", record), columns=columns) == [wanted]


def test_a_gap_in_a_list_does_not_shift_it(tmp_path: Path) -> None:
    ctx = [{"t": "a", "ok": 1}, {"t": "b"}, {"ok": 0}]
    file = write(tmp_path / "a.jsonl", {"query": "q", "ctx": ctx})
    assert '"ctx.t[2]" must be a text, got None' in error_of(
        file, columns={"ctx.t": "doc", "ctx.ok": "rel"}
    )


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *QA)
    missing = error_of(file, columns={"qestion": "query", "answers.text": "pos"})
    assert missing == (
        'columns: no row has "qestion" (did you mean "question"?); there are \'question\', '
        "'answers.text', 'answers.answer_start'"
    )
    more = {"question": "query", "answers.text": "pos", "negs": "neg"}
    assert error_of(file, columns=more).startswith('columns: no row has "negs"; there are')
    # One row that has it is enough.
    write(tmp_path / "a.jsonl", *QA, {**QA[0], "negs": ["n"]})
    assert groups(file, columns=more)[2][2] == ["n"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"question": "qery"},
            'cannot map "question" to "qery", an unknown field; did you mean query?',
        ),
        ({"a": "docs_i_like"}, "an unknown field; "),
        ({"a": "pos", "b": "positives"}, '"a" and "b" are both mapped to "pos"; keep one'),
        ({"a": "negative_1", "b": "neg_01"}, '"a" and "b" are both mapped to "negative_1"'),
    ],
)
def test_columns_that_cannot_be(columns: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=r"^columns: ") as raised:
        ReadOptions(columns=columns)
    assert message in str(raised.value)


@pytest.mark.parametrize("style", ["negative_{}", "negative{}", "neg_{}", "hard_negative_{}"])
def test_numbered_negatives_come_in_the_order_of_their_numbers(style: str, tmp_path: Path) -> None:
    numbered = {style.format(at): f"n{at}" for at in (10, 2, 1, 9, 0)}
    file = write(
        tmp_path / "a.jsonl",
        {"anchor": "q", "positive": "p", **numbered, style.format(3): None, "negative": "first"},
    )
    assert groups(file) == [("q", ["p"], ["first", "n0", "n1", "n2", "n9", "n10"])]
    write(tmp_path / "a.jsonl", {"anchor": "q", "positive": "p", style.format(2): " "})
    assert f'"{style.format(2)}[0]" is empty' in error_of(file)


def test_what_sentence_transformers_mines(tmp_path: Path) -> None:
    """Each ``output_format`` of ``mine_hard_negatives``, with and without ``output_scores``."""
    pair = {"anchor": "q", "positive": "p"}
    tuple_ = {**pair, "negative_1": "m", "negative_2": "n"}
    for records, wanted, scores in (
        ([{**pair, "negative": "n"}], (["p"], ["n"]), None),
        ([{**pair, "negative": "n", "scores": [0.9, 0.2]}], (["p"], ["n"]), ([0.9], [0.2])),
        ([tuple_], (["p"], ["m", "n"]), None),
        ([{**tuple_, "scores": [3, 2, 1]}], (["p"], ["m", "n"]), ([3], [2, 1])),
        ([{**pair, "label": 1}, {**pair, "positive": "n", "label": 0}], (["p"], ["n"]), ([1], [0])),
        ([{**pair, "score": 0.8}, {**pair, "positive": "n", "score": 0.1}], (["p"], ["n"]),
         ([0.8], [0.1])),
        ([{**pair, "positive": ["p", "m", "n"], "labels": [1, 0, 0]}], (["p"], ["m", "n"]),
         ([1], [0, 0])),
    ):  # fmt: skip
        (row,) = read(write(tmp_path / "a.jsonl", *records), "candidate_group")
        assert (row["pos"], row["neg"]) == wanted
        assert scores in (None, (row["pos_scores"], row["neg_scores"]))


def test_a_list_with_scores_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """labeled-list with scores looks like positives with a teacher's scores."""
    row = {"anchor": "q", "positive": ["p", "n"], "scores": [0.9, 0]}
    with_negatives = write(tmp_path / "b.jsonl", {**row, "neg": ["m"], "neg_scores": [0]})
    assert groups(with_negatives) == [("q", ["p", "n"], ["m"])]
    assert "several positives with scores" not in caplog.text
    file = write(tmp_path / "a.jsonl", row)
    assert groups(file) == [("q", ["p", "n"], [])]
    assert "1 rows have several positives with scores and no negatives" in caplog.text
    assert groups(file, columns={"positive": "doc", "scores": "rel"}) == [("q", ["p"], ["n"])]


def test_labels_of_another_length_than_their_texts(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"query": "q", "positive": ["a", "b"], "labels": [1]})
    assert '"labels" must be a list with a label for each of 2 texts in "positive"' in error_of(
        file
    )


@pytest.mark.parametrize("name", ["positive_passages", "neg", "hits", "negative_2", "doc"])
def test_titles_stand_before_texts(name: str, tmp_path: Path) -> None:
    passage = {"title": " 标题 ", "text": "正文 ", "docid": "1"}
    item: Any = (
        passage if name in ("negative_2", "doc") else [passage, {"title": None, "text": "t"}]
    )
    record: dict[str, Any] = {"query": "q", name: item, "label": 1}
    if name == "hits":
        item[0]["label"] = item[1]["label"] = True
    if name.startswith("neg"):
        record["pos"] = ["p"]
    ((_, pos, neg),) = groups(write(tmp_path / "a.jsonl", record))
    found = neg if name.startswith("neg") else pos
    assert found == ["标题  正文"] if name in ("negative_2", "doc") else ["标题  正文", "t"]


def test_a_title_alone_and_one_that_is_no_text(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"query": "q", "pos": [{"title": "T", "text": ""}]})
    assert groups(file) == [("q", ["T"], [])]
    write(tmp_path / "a.jsonl", {"query": "q", "pos": [{"title": 3, "text": "t"}]})
    assert '"pos[0].title" must be a text, got 3' in error_of(file)


@pytest.mark.parametrize(
    ("label_map", "label_range", "wanted"),
    [
        (None, None, [1.0, 0.0]),
        ({"true": 0.9, "false": 0.1}, None, [0.9, 0.1]),
        ({"True": 0.9, "False": 0.1}, None, [0.9, 0.1]),
        ({"1": 0.7, "0": 0.2}, None, [0.7, 0.2]),
        (None, (0.0, 2.0), [0.5, 0.0]),
    ],
)
def test_booleans_in_every_format(
    label_map: Any, label_range: Any, wanted: list[float], tmp_path: Path
) -> None:
    records = [{"query": "q", "doc": f"d{flag}", "relevance": flag} for flag in (True, False)]
    files = [write(tmp_path / "a.jsonl", *records), str(tmp_path / "a.parquet")]
    pq.write_table(pa.Table.from_pylist(records), files[1])
    for name, words in (("b.csv", "True False"), ("c.csv", "true false"), ("d.csv", "TRUE FALSE")):
        lines = [f"q,d{at},{word}" for at, word in enumerate(words.split())]
        (tmp_path / name).write_text("\n".join(["query,doc,label", *lines]))
        files.append(str(tmp_path / name))
    for file in files:
        found = read(file, "scored_pair", label_map=label_map, label_range=label_range)
        assert [row["rel"] for row in found] == wanted, file


def test_fields_that_sound_as_if_they_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "loaders")
    row = {"query": "q", "pos": [{"text": "p", "score": 3, "url": "u"}], "Answers": 1, "lang": "x"}
    files = [write(tmp_path / name, row, {**row, "title": "T"}) for name in ("a.jsonl", "b.jsonl")]
    load_rows(files, "candidate_group", ReadOptions())
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    warned = {message for level, message in said if level == "WARNING"}
    assert warned == {
        f"{file}: the field {name} is not used ({count} times)"
        for file in files
        for name, count in (("pos.score", 2), ("Answers", 2), ("title", 1))
    }
    assert ("INFO", "fields that are not used: pos.url (4 times), lang (4 times)") in said


@pytest.mark.parametrize(
    "name", ["a\nb", "a\r", "\x1b[2J", "\u2028", "\ud800", 'a"b', "a\tb", "标题"]
)
def test_names_of_fields_stay_on_one_line_and_can_be_pasted(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "a.jsonl", {name: "q", "pos": ["p"]})
    mapped = re.search(r"map its column: columns (\{.*\})$", error_of(file), re.DOTALL)
    assert mapped is not None
    assert json.loads(mapped[1]) == {name: "query"}
    shown = one_line(name)
    assert len(shown.splitlines()) == 1 and shown.encode()
    caplog.set_level(logging.INFO, "loaders")
    read(
        write(tmp_path / "b.jsonl", {"query": "q", "pos": ["p"], f"title{name}": "t"}),
        "positive_pair",
    )
    assert f"{tmp_path}/b.jsonl: the field title{shown} is not used (1 times)" in caplog.messages


def test_a_header_over_several_lines_is_one_in_a_message(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('query,"pos\ndoc","pos\ndoc"\nq,p,p\n')
    assert error_of(str(tmp_path / "a.csv")).endswith(
        'the header names two columns "pos\\ndoc"; rename one'
    )
