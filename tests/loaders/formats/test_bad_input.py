"""Each bad input gives one clear sentence that names file, line, field, value and remedy."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loaders import DataFiles, ReadOptions, Shape, detect_shape, load_rows

GOOD = '{"query": "好", "doc": "d", "rel": 1}\n'


def error_of(file: str | Path, shape: Shape = "scored_pair", **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        load_rows(str(file), shape, ReadOptions(**options))
    return str(caught.value)


def reason(tmp_path: Path, record: str, shape: Shape = "scored_pair", **options: Any) -> str:
    """The reason given for a record in the second line of a file."""
    path = tmp_path / "a.jsonl"
    good = '{"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1], "neg_scores": [0]}\n'
    path.write_text(good + record + "\n", encoding="utf-8")
    head, *lines = error_of(path, shape, **options).split("\n")
    assert head == (
        "1 of 2 rows are bad (give rejected_file to have all of them written); repair them, or "
        'set on_bad_rows to "skip" to go on without them:'
    )
    (line,) = lines
    prefix = f"  {path}:2: "
    assert line.startswith(prefix)
    return line.removeprefix(prefix)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ('{"query": "q",', "not JSON: Expecting property name enclosed in double quotes"),
        ("[1, 2]", "a row must be an object with named fields, got [1, 2]"),
        (
            '{"doc": "d", "rel": 1}',
            'missing field "query" (also read from anchor, sentence1, text1)',
        ),
        (
            '{"query": "q", "doc": "d"}',
            'missing field "rel" (also read from relevance, score, label, labels); if each '
            'document answers its query, give columns {"doc": "pos_doc"}',
        ),
        ('{"query": "q", "doc": "d", "rel": null}', '"rel" is empty'),
        (
            '{"query": "q", "doc": "d", "grade": 0.5}',
            'missing field "rel" (also read from relevance, score, label, labels); map its column: '
            'columns {"grade": "rel"}',
        ),
        (
            '{"query": "q", "dok": "d", "rel": 1}',
            "no document in the fields ['query', 'dok', 'rel']: a row needs \"pos\", \"hits\", "
            '"pos_doc", or "doc" with "rel"; map its column: columns {"dok": "doc"}',
        ),
        (
            '{"data": [{"query": "q", "pos_doc": "d"}]}',
            'missing field "query" (also read from anchor, sentence1, text1); if "data" holds the '
            "rows, give that list alone as the file",
        ),
        (
            '{"query": "q", "doc": ["d"], "rel": 1}',
            '"rel" must be a list with a label for each of 1 texts in "doc"',
        ),
        ('{"query": "q", "doc": 7, "rel": 1}', '"doc" must be a text, got 7'),
        ('{"query": " \\n", "doc": "d", "rel": 1}', '"query" is empty'),
        ('{"query": "\u3000", "doc": "d", "rel": 1}', '"query" is empty'),
        ('{"query": "q", "doc": "", "rel": 1}', '"doc" is empty'),
        (
            '{"query": "q", "doc": "d", "score": 1.5}',
            '"score" is 1.5, outside [0, 1]; for another scale give label_range or label_map',
        ),
        (
            '{"query": "q", "doc": "d", "rel": "1"}',
            "\"rel\" must be a number, got '1'; write it without quotes, or give label_map",
        ),
        (
            '{"query": "q", "doc": "d", "rel": "true"}',
            "\"rel\" must be a number, got 'true'; for words give label_map",
        ),
        ('{"query": "q", "doc": "d", "rel": NaN}', '"rel" must be a finite number, got nan'),
        (
            '{"query": "q", "doc": "d", "rel": 1, "weight": -2}',
            '"weight" must be above 0, 1e-30 at least, got -2',
        ),
        (
            '{"query": "q", "doc": "d", "rel": 1, "weight": 0}',
            '"weight" must be above 0, 1e-30 at least, got 0',
        ),
        (
            '{"query": "q", "doc": "d", "rel": 1, "weight": 1e-46}',
            '"weight" must be above 0, 1e-30 at least, got 1e-46',
        ),
        (
            '{"query": "q", "doc": "d", "rel": 1, "weight": 3e38}',
            '"weight" must be a number up to 1e+30, got 3e+38',
        ),
        (
            '{"query": "q", "pos": ["p"], "pos_scores": [1e39]}',
            '"pos_scores[0]" must be a number up to 1e+30, got 1e+39',
        ),
        (
            '{"query": "q", "doc": "d", "rel": 1, "weight": NaN}',
            '"weight" must be a finite number, got nan',
        ),
        ('{"query": "q", "pos": [], "neg": ["n"]}', '"pos" is empty'),
        ('{"query": "q", "pos": ["p", " "]}', '"pos[1]" is empty'),
        ('{"query": "q", "pos": ["p", null]}', '"pos[1]" must be a text, got None'),
        ('{"query": "q", "pos": ["p"], "neg": [""]}', '"neg[0]" is empty'),
        (
            '{"query": "q", "pos": ["p"], "pos_scores": [1, 2]}',
            '"pos_scores" has 2 scores for 1 documents in "pos"',
        ),
        (
            '{"query": "q", "pos": ["p"], "scores": ["high"]}',
            "\"scores[0]\" must be a number, got 'high'",
        ),
        ('{"query": "q", "hits": []}', "a group without any document"),
        (
            '{"query": "q", "hits": [{"content": "c"}]}',
            'missing field "hits[0].rel" (also read from relevance, score, label, labels)',
        ),
        ('{"query": "a\\u0000b", "pos": ["p"]}', '"query" contains a NUL character'),
        (
            '{"query": "\\ud83d", "pos": ["p"]}',
            '"query" contains \\ud83d, one half of a surrogate pair',
        ),
        ('{"query": "q", "pos": ["p"], "prompt": 5}', '"prompt" must be a text, got 5'),
        (
            '{"query": "q", "query": "r", "doc": "d", "rel": 1}',
            '"query" occurs twice in this row; keep one',
        ),
        (
            '{"query": "q", "hits": [{"content": "a", "content": "b", "label": 1}]}',
            '"hits[0]" must be an object, got an object with two "content"',
        ),
        (
            '{"_id": "d1", "title": "猫", "text": "猫吃鱼"}',
            "a document or query of a BEIR folder, not a training row; make groups of the "
            "folder: scripts/prepare_data.py beir --help",
        ),
    ],
)
def test_bad_rows(tmp_path: Path, record: str, expected: str) -> None:
    found = reason(tmp_path, record)
    if expected.startswith("not JSON"):
        found = found.partition(" (column")[0].partition(":")[0]
        expected = expected.partition(":")[0]
    assert found == expected


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("a.jsonl", '{"anchor": "a", "positive": "p", "label": null}\n', "label"),
        ("a.jsonl", '{"anchor": "a", "positive": "p", "label": ""}\n', "label"),
        ("a.jsonl", '{"query": "a", "pos": ["p", "r"], "labels": null}\n', "labels"),
        ("a.csv", "query,positive,label\na,p one,1\nb,p two,\n", "label"),
        ("a.tsv", "query\tpos_doc\tscore\nb\tp two\t\n", "score"),
        ("a.csv", "query,pos_doc,标签\na,p one,1\nb,p two,\n", "标签"),
    ],
)
def test_a_missing_label_makes_no_positive(
    tmp_path: Path, name: str, text: str, field: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    columns = {"标签": "rel"} if field == "标签" else {}
    found = error_of(tmp_path / name, columns=columns)
    assert f'"{field}" has no label for' in found


@pytest.mark.parametrize("label", ['"0"', '" -0.5"', "[0]"])
def test_a_label_that_is_no_number_makes_no_positive(tmp_path: Path, label: str) -> None:
    found = reason(tmp_path, f'{{"anchor": "a", "positive": "p", "label": {label}}}')
    assert found.startswith('"label" must be a number, got ')
    topics = tmp_path / "b.jsonl"  # no labels of relevance
    topics.write_text('{"anchor": "a", "positive": "p", "labels": ["sports", "2"]}\n')
    assert load_rows(str(topics), "scored_pair", ReadOptions())["rel"] == [1]


def test_the_bad_rows_of_before_do_not_outlive_their_repair(tmp_path: Path) -> None:
    file, rejected = tmp_path / "a.jsonl", tmp_path / "rejected.jsonl"
    file.write_text('{"query": "q"}\n{"query": "q", "doc": "d", "rel": 1}\n')
    error_of(file, rejected_file=rejected)
    assert rejected.exists()
    file.write_text('{"query": "q", "doc": "d", "rel": 1}\n')
    load_rows(str(file), "scored_pair", ReadOptions(rejected_file=rejected))
    assert not rejected.exists()
    for other in (file, tmp_path):  # neither removed nor replaced
        with pytest.raises(ValueError, match="already exists and is not a list of bad rows"):
            ReadOptions(rejected_file=other)


def test_parquet_with_two_columns_of_one_name(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])]
    table = pa.Table.from_arrays(columns, names=["query", "pos_doc", "pos_doc"])
    pq.write_table(table, tmp_path / "a.parquet")
    found = error_of(tmp_path / "a.parquet", "positive_pair")
    assert "several columns are named 'pos_doc'; rename them" in found


def test_bad_rows_by_option(tmp_path: Path) -> None:
    missing = '{"query": "q", "pos": ["p"]}'
    assert (
        reason(tmp_path, missing, "candidate_group", needs_negatives=True)
        == '"neg" is empty or missing, and the objective needs negatives; '
        "scripts/mine_negatives.py adds them"
    )
    assert (
        reason(tmp_path, missing, "candidate_group", relevance_from_scores=True)
        == '"pos_scores" is missing; relevance_from_scores needs it'
    )
    pair = '{"query": "q", "doc": "d", "label": 7}'
    assert reason(tmp_path, pair, label_range=(0, 5)) == '"label" is 7, outside label_range (0, 5)'
    assert (
        reason(tmp_path, pair, label_map={"0": 0, "1": 1})
        == '"label" is 7, which is not in label_map (0, 1)'
    )


def test_many_bad_rows_are_counted_and_written(tmp_path: Path) -> None:
    path, rejected = tmp_path / "a.jsonl", tmp_path / "out" / "rejected_rows.jsonl"
    bad = '{"query": "坏", "doc": "d", "rel": 2, "weight": NaN}\n{"query"\n'
    path.write_text(GOOD + bad * 15, encoding="utf-8")
    head, *lines = error_of(path, rejected_file=rejected).split("\n")
    assert head.startswith(f"30 of 31 rows are bad (all of them are in {rejected});")
    assert len(lines) == 21
    assert lines[-1] == "  ... and 10 more"
    written = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
    assert len(written) == 30
    assert written[0] == {
        "file": str(path),
        "line": 2,
        "reason": '"weight" must be a finite number, got nan',
        "record": {"query": "坏", "doc": "d", "rel": 2, "weight": "nan"},
    }
    assert written[1]["record"] == '{"query"'
    assert "坏" in rejected.read_text(encoding="utf-8")


def test_skip_goes_on_and_writes_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD + '{"query": "\\ud800"}\n' + GOOD, encoding="utf-8")
    caplog.set_level(logging.WARNING, "loaders")
    for name in ("first.jsonl", "second.jsonl"):  # built, then reused
        caplog.clear()
        rejected = tmp_path / name
        options = ReadOptions(on_bad_rows="skip", rejected_file=rejected)
        assert len(load_rows(str(path), "scored_pair", options)) == 2
        assert caplog.messages == [
            "all 2 rows have the relevance 1",
            f'1 of 3 rows are bad and skipped; the first: {path}:2: "query" contains \\ud800, one '
            "half of a surrogate pair",
            f"skipped rows and the reasons: {rejected}",
        ]
        (written,) = map(json.loads, rejected.read_text(encoding="utf-8").splitlines())
        assert written["line"] == 2 and written["record"] == {"query": "\ud800"}


def test_file_without_a_good_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n")
    assert error_of(path) == f"{path}: there is no row in it"
    assert error_of(path, on_bad_rows="skip") == f"{path}: there is no row in it"
    path.write_text('{"query": "q"}\n{"query": ""}\n')
    assert error_of(path, on_bad_rows="skip") == (
        f"{path}: all 2 rows are bad (give rejected_file to have all of them written); the "
        f'last: {path}:2: "query" is empty'
    )
    first = "no row is good; the first is in line 1: no document in the fields"
    with pytest.raises(ValueError, match=first):
        detect_shape(str(path), ReadOptions())


def test_where_no_row_is_good_all_are_listed_whatever_the_objective(tmp_path: Path) -> None:
    """Of an objective that takes several shapes too, whose choice asks for the files' own."""
    path = tmp_path / "rows.jsonl"
    row = '{"question": "q", "answer": "a", "score": "3"}\n'
    path.write_text(2 * row, encoding="utf-8")
    rejected = tmp_path / "rejected.jsonl"
    files = DataFiles(str(path), ReadOptions(rejected_file=rejected))
    with pytest.raises(ValueError, match='missing field "query"') as refused:
        files.rows(files.choose_shape(["scored_pair", "candidate_group"]))
    assert '; map its column: columns {"question": "query"}' in str(refused.value)
    assert len(rejected.read_text(encoding="utf-8").splitlines()) == 2


def test_files_that_are_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "train.jsonl"
    assert error_of(missing) == f"{missing}: no such file; the current folder is {Path.cwd()}"
    known = ".json, .jsonl, .ndjson, .csv, .tsv, .txt, .parquet (or .gz of the text ones)"
    assert error_of(tmp_path) == f"{tmp_path}: no file in this folder ends in one of {known}"
    (tmp_path / "a.xlsx").write_text("")
    assert error_of(tmp_path / "a.xlsx") == (
        f"{tmp_path / 'a.xlsx'}: the name must end in one of {known}; export it to one of "
        "these, or unpack it"
    )
    with pytest.raises(ValueError, match="no data file is given"):
        load_rows([], "scored_pair", ReadOptions())
    assert error_of("nobody/nothing").startswith(
        "nobody/nothing: no such file or folder here, and no data set of that name could be "
        "opened on the Hub: "
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" + GOOD + ",\n" + GOOD, "4: the file ends within the JSON array"),
        ("[\n" + GOOD + ",\n\n{'query': 1}]", "5: not JSON: Expecting property name"),
        ("[" + GOOD + GOOD + "]", '2: not JSON: expected "," or "]" after an element'),
        ("[" + GOOD + ",]", "2: not JSON: Expecting value"),
        ("[" + GOOD + "] []", "2: there is more text after the end of the array"),
        ("[" + GOOD + ', {"query": "no end', "2: not JSON: Unterminated string starting at"),
        ("[" + "[" * 100_000, "1: not JSON: maximum recursion depth exceeded"),
        ("[" + "9" * 5000 + "]", "1: not JSON: Exceeds the limit"),
    ],
)
def test_broken_arrays_stop_in_both_modes(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    for mode in ("error", "skip"):
        assert error_of(path, on_bad_rows=mode).startswith(f"{path}:{expected}")


def test_array_elements_name_their_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    rows = [{"query": "好", "doc": "d", "rel": rel} for rel in (1, 2, 0)]
    path.write_text(json.dumps(rows, indent=4), encoding="utf-8")
    assert f'\n  {path}:7: "rel" is 2, outside [0, 1]' in error_of(path)


def test_repeated_names_in_an_array_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'[{GOOD},\n{{"query": "q", "doc": "d", "doc": "e", "rel": 1}}]')
    assert error_of(path).endswith(f'\n  {path}:3: "doc" occurs twice in this row; keep one')
    rejected = tmp_path / "rejected.jsonl"
    options = ReadOptions(on_bad_rows="skip", rejected_file=rejected)
    assert len(load_rows(str(path), "scored_pair", options)) == 1
    assert json.loads(rejected.read_text(encoding="utf-8"))["record"]["doc"] == "e"


def test_an_object_over_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("\n" + json.dumps({"data": [json.loads(GOOD)]}, indent=2))
    expected = (
        "a JSON object that goes over several lines; give an array of rows, or one row a line"
    )
    assert error_of(path, on_bad_rows="skip") == f"{path}:2: {expected}"


@pytest.mark.parametrize(
    ("name", "header", "columns"),
    [
        ("a.tsv", "question\tanswer\tlabel", "query, doc, label"),
        ("a.csv", "Query,Document,Score", "query, doc, label"),
        ("a.csv", "问题,答案", "query, pos_doc"),
        ("a.tsv", "title\tAnswer", "query, pos_doc"),
    ],
)
def test_a_header_that_names_no_query(tmp_path: Path, name: str, header: str, columns: str) -> None:
    """It would otherwise become the first row."""
    path = tmp_path / name
    row = ",".join(["猫", "鱼", "1"][: len(columns.split(", "))])
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    assert error_of(path).startswith(
        f"{path}:1: the header names no query; its columns must be {columns} (in small letters), "
        "or give columns: {"
    )


def test_a_table_with_other_separators(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("query;doc;rel\na;b;1\n")
    (tmp_path / "a.tsv").write_text("a cat  a dog  1\n")
    for name in ("a.csv", "a.tsv"):
        assert error_of(tmp_path / name) == (
            f"{tmp_path / name}:1: one column only; a .csv is separated by commas, a .tsv or .txt "
            "by tabs"
        )


def test_whole_numbers_with_a_point_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,doc,label\na,b,3.0\nc,d,0.0\ne,f,1.5\n")
    labels = {"3": 1.0, "0": 0.25}
    options = ReadOptions(label_map=labels, on_bad_rows="skip")
    rows = load_rows(str(path), "scored_pair", options)
    assert [rows[at]["rel"] for at in range(len(rows))] == [1.0, 0.25]
    assert error_of(path, label_map=labels).endswith(
        f"\n  {path}:4: \"label\" is '1.5', which is not in label_map (3, 0)"
    )


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('query,doc,rel\n"two\nlines",d,1\nq,d\nq,d,high\n,d,1\nq,d,\n')
    _, *lines = error_of(path).split("\n")
    assert lines == [
        f"  {path}:4: 2 cells, where there are 3 columns (query, doc, rel)",
        f"  {path}:5: \"rel\" must be a number, got 'high'; for words give label_map",
        f'  {path}:6: "query" is empty',
        f'  {path}:7: "rel" is empty',
    ]
    path.write_text('query,doc,rel\nq,"d,1\nq,d,1\n')
    assert error_of(path).startswith(f"{path}:2: not CSV: unexpected end of data; a cell with a ")
    path.write_text("query,doc,rel,doc\nq,d,1,e\n")
    assert error_of(path) == f'{path}:1: the header names two columns "doc"; rename one'
    path.write_text("a,b,c,d\n")
    assert error_of(path) == (
        f"{path}:1: 4 columns and no header; without one a file has query, doc, label, or query, "
        "pos_doc"
    )
    tsv = tmp_path / "a.tsv"
    tsv.write_text("q\td\t3\nq\td\t4\n")
    assert error_of(tsv).endswith(
        f"\n  {tsv}:2: \"label\" is '4', which is not in label_map (3, 2, 1, 0)"
    )


def test_files_that_are_not_what_their_name_says(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text(GOOD)
    assert error_of(tmp_path / "a.parquet").startswith(f"{tmp_path / 'a.parquet'}:1: not Parquet: ")
    (tmp_path / "a.jsonl.gz").write_text(GOOD)
    assert "cannot be read: Not a gzipped file" in error_of(tmp_path / "a.jsonl.gz")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(GOOD.encode() * 9)[:-12])
    assert error_of(tmp_path / "b.jsonl.gz") == (
        f"{tmp_path / 'b.jsonl.gz'} cannot be unpacked: Compressed file ended before the "
        "end-of-stream marker was reached; fetch or pack it again"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"label_map": {"a": 2}}, 'label_map gives "a" 2; it must be in [0, 1]'),
        (
            {"label_range": (-1e308, 1e308)},
            "label_range is (-1e+308, 1e+308); give (lowest, highest)",
        ),
        ({"label_range": (5, 0)}, "label_range is (5, 0); give (lowest, highest)"),
        ({"positive_threshold": 0}, "positive_threshold is 0, not in (0, 1]"),
        ({"on_bad_rows": "ignore"}, 'on_bad_rows is "ignore"; give "error" or "skip"'),
        (
            {"label_map": {}, "label_range": (0, 5)},
            "label_map and label_range are both given; labels need only one",
        ),
    ],
)
def test_impossible_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        ReadOptions(**options)
    assert str(caught.value) == expected


def test_documents_that_repeat_in_a_group_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jsonl"
    groups = ['{"query": "q", "pos": ["p"], "neg": ["p", "n"]}', '{"query": "r", "pos": ["p"]}']
    path.write_text("\n".join(groups))
    note = (
        "1 queries have a document more than once; it is one candidate, with the highest of its "
        "relevances"
    )
    load_rows(str(path), "candidate_group", ReadOptions())
    assert caplog.messages == [note]
    pairs = [{"query": "问", "doc": doc, "rel": rel} for doc, rel in [("a", 1), ("b", 0), ("a", 0)]]
    path.write_text("\n".join(json.dumps(pair) for pair in pairs))
    caplog.clear()
    load_rows(str(path), "candidate_group", ReadOptions())
    assert caplog.messages == [note]
