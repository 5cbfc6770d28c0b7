"""The reader of BEIR folders: every form that they come in, and what is wrong, by file and line."""

import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval

from loaders.beir.evaluation_set import find_splits, read_corpus, read_set
from loaders.beir.files import is_beir
from loaders.beir.problems import Problems
from loaders.beir.qrels import read_qrels

DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "d1", "title": "Paris", "text": "the capital of France"},
    {"_id": "d2", "title": "", "text": "a cat"},
    {"_id": "文3", "title": "only a title", "text": None},
]
QUERIES: list[dict[str, Any]] = [
    {"_id": "q1", "text": "capital of France"},
    {"_id": "问2", "text": "a pet"},
    {"_id": "q3", "text": ""},
]
QRELS = {"q1": {"d1": 2.0, "d2": -1.0}, "问2": {"d2": 1.0}}
TRIPLES = [(q, d, f"{grade:g}") for q, judged in QRELS.items() for d, grade in judged.items()]
PLAIN = "\n".join("\t".join(triple) for triple in TRIPLES)
TREC = "\n".join(f"{q} 0 {d} {grade}" for q, d, grade in TRIPLES)


def lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write(folder: Path, **files: str | bytes) -> Path:
    """A set; ``files`` replaces corpus, queries or qrels."""
    given = {"corpus": lines(DOCUMENTS), "queries": lines(QUERIES), "qrels": PLAIN} | files
    names = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels/test.tsv"}
    for name, content in given.items():
        path = folder / names[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return folder


def judgements(folder: Path, text: str | bytes, name: str = "test.tsv") -> dict[str, Any]:
    """What a file of judgements says."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    mistakes = Problems()
    found = read_qrels([path], mistakes)
    mistakes.check()
    return found


@pytest.mark.parametrize(
    "header",
    [
        "query-id\tcorpus-id\tscore", "query_id\tdoc_id\trelevance", "qid\tdocid\trel",
        "qid\tpid\tlabel", "QueryID\tDocumentID\tRelevance", "topic\tdocno\tgrade",
        "#query-id\tpassage-id\tjudgment", "query id\tcorpus id\tscore", "query\tcorpus\trating",
        "\ufeffquery-id\tcorpus-id\tscore\t", "query-id corpus-id score",
        "question_number\tanswer\tscore",
    ],
)  # fmt: skip
def test_headers_of_every_wording(tmp_path: Path, header: str) -> None:
    assert judgements(tmp_path, f"{header}\n{PLAIN}\n") == QRELS
    assert judgements(tmp_path, f"{header}\r\n\r\n{PLAIN}\n".replace("\n", "\r\n")) == QRELS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test.tsv", "query_id\titeration\tdoc_id\trelevance_grade\nq\t0\td\t0\n"),
        ("test.jsonl", '{"query_id": "q", "doc_id": "d", "rel_score": 0, "annotator": 7}\n'),
    ],
)
def test_a_relevance_under_an_unknown_name_is_not_taken_for_none(
    tmp_path: Path, name: str, text: str
) -> None:
    """Without such a column all listed documents are relevant."""
    with pytest.raises(ValueError, match=rf"{name}: no column .* is known to be the relevance"):
        judgements(tmp_path, text, name)


@pytest.mark.parametrize("between", [" ", "\t", "  ", " \t "])
@pytest.mark.parametrize("header", ["", "qid iteration docid rel", "query_id Q0 doc_id relevance"])
def test_four_columns_as_trec_eval_reads_them(tmp_path: Path, between: str, header: str) -> None:
    text = TREC.replace(" ", between)
    if between.strip(" "):
        header = header.replace(" ", "\t")
    theirs = pytrec_eval.parse_qrel(io.StringIO(TREC))
    assert judgements(tmp_path, f"{header}\n{text}") == theirs == QRELS


def test_names_tell_the_order_of_columns(tmp_path: Path) -> None:
    rows = [f"{d}\t{grade}\t{q}\tsomebody" for q, d, grade in TRIPLES]
    header = "corpus-id\tscore\tquery-id\tannotator"
    assert judgements(tmp_path, "\n".join([header, *rows])) == QRELS
    without = "\n".join(["query-id\tcorpus-id", "q1\td1"])
    assert judgements(tmp_path, without) == {"q1": {"d1": 1.0}}


def test_columns_of_blanks_behind_are_no_columns(tmp_path: Path) -> None:
    assert (
        judgements(tmp_path, PLAIN.replace("\n", "\t\n").replace("\t", " \t ") + "\t \t") == QRELS
    )


def test_ids_may_have_blanks_between_tabs(tmp_path: Path) -> None:
    assert judgements(tmp_path, "q 1\td 1\t1\nq 2\t0\td 2\t0") == {
        "q 1": {"d 1": 1},
        "q 2": {"d 2": 0},
    }


@pytest.mark.parametrize("name", ["a.tsv.gz", "a.txt.gz", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_judgements_packed_or_as_records(tmp_path: Path, name: str) -> None:
    records = [{"query-id": q, "corpus-id": d, "score": int(grade)} for q, d, grade in TRIPLES]
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), table)
    content = {"jsonl": lines(records).encode(), "parquet": table.getvalue()}.get(
        name.split(".")[1], PLAIN.encode()
    )
    packed = gzip.compress(content) if name.endswith(".gz") else content
    assert judgements(tmp_path, packed, name) == QRELS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "q1\td1\t1\nq1\td2\thigh",
            r"test\.tsv:2: the score must be a number up to 1e\+30, got 'high'",
        ),
        (
            "q1\td1\t1\nq1\td2\tnan",
            r"test\.tsv:2: the score must be a number up to 1e\+30, got 'nan'",
        ),
        ("query-id\tcorpus-id\tscore\nq1\td1\t1\t9", r"test\.tsv:2: expected query-id, corpus-id"),
        ("q1\td1\t1\nq1\td2", r"test\.tsv:2: expected query-id, corpus-id and score"),
        ("q1\td1\t1\nq1\td1\t2", r"test\.tsv:2: query 'q1' .* judged twice, 1 and 2"),
        ("query\tdocument\0\t1", r"test\.tsv:1: \"corpus-id\" contains a NUL character"),
        (b"q1\td1\t1\nq\xe91\td1\t1", r"test\.tsv:2: byte 0xe9 is not UTF-8"),
        ("query-id\tcorpus-id\tscore", r"test\.tsv has no judgements"),
    ],
)
def test_a_bad_judgement_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judgements(tmp_path, text)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "expected the fields query-id, corpus-id and score, got {}"),
        ([], "expected the fields query-id, corpus-id and score, got []"),
        ({"a": 1, "b": 2, "c": 3}, "expected the fields query-id, corpus-id and score, got {'a'"),
        ({"query-id": "q", "corpus-id": "d"}, "has no score, unlike those before"),
    ],
)
def test_a_bad_record_is_named(tmp_path: Path, record: Any, message: str) -> None:
    good = {"query-id": "q", "corpus-id": "e", "score": 2}
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{re.escape(message)}"):
        judgements(tmp_path, lines([good, record]), "a.jsonl")


def test_no_record_needs_a_score_where_none_has_one(tmp_path: Path) -> None:
    records = [{"query-id": "q", "corpus-id": name} for name in "de"]
    assert judgements(tmp_path, lines(records), "a.jsonl") == {"q": {"d": 1.0, "e": 1.0}}
    one = {"query-id": "q", "corpus-id": "f", "score": 0}
    with pytest.raises(ValueError, match=r"a\.jsonl:3: .* has a score, unlike those before"):
        judgements(tmp_path, lines([*records, one]), "a.jsonl")


def test_a_packed_file_that_breaks_off(tmp_path: Path) -> None:
    for name, content in (("a.tsv.gz", PLAIN), ("b.jsonl.gz", '{"query-id": "q"}')):
        with pytest.raises(ValueError, match=rf"{name} cannot be unpacked"):
            judgements(tmp_path, gzip.compress(content.encode())[:-9], name)


# Texts


def test_a_folder_is_read(tmp_path: Path) -> None:
    documents, queries, qrels = read_set(write(tmp_path))
    assert documents == {"d1": "Paris the capital of France", "d2": "a cat", "文3": "only a title"}
    assert queries == {"q1": "capital of France", "问2": "a pet", "q3": ""}
    assert qrels == {"test": QRELS}


@pytest.mark.parametrize(
    ("document", "query"),
    [("_id", "_id"), ("id", "id"), ("docid", "qid"), ("doc_id", "query_id"),
     ("corpus-id", "query-id")],
)  # fmt: skip
@pytest.mark.parametrize(("body", "asked"), [("text", "text"), ("contents", "query")])
def test_ids_and_texts_of_every_name(
    tmp_path: Path, document: str, query: str, body: str, asked: str
) -> None:
    corpus = [{document: n, body: f"text {n}"} for n in (1, 2)]
    queries = [{query: 7, asked: "what?"}]
    folder = write(tmp_path, corpus=lines(corpus), queries=lines(queries), qrels="7\t1\t1")
    assert read_set(folder) == (
        {"1": "text 1", "2": "text 2"},
        {"7": "what?"},
        {"test": {"7": {"1": 1}}},
    )


def test_a_clone_of_the_hub(tmp_path: Path) -> None:
    """Parquet in folders, of several files, with judgements in data/, packed or in qrels/."""
    for place, records in {
        "corpus/corpus-00000-of-00002": DOCUMENTS[:1],
        "corpus/corpus-00001-of-00002": DOCUMENTS[1:],
        "queries/queries-00000-of-00001": QUERIES,
        "data/test-00000-of-00001": [
            {"query-id": q, "corpus-id": d, "score": float(grade)} for q, d, grade in TRIPLES
        ],
    }.items():
        (tmp_path / place).parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(records), tmp_path / f"{place}.parquet")
    assert is_beir(tmp_path) and find_splits(tmp_path) == ["test"]
    assert read_set(tmp_path) == read_set(write(tmp_path / "plain"))


def test_splits_are_found_in_every_form(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "qrels" / "dev.tsv.gz").write_bytes(gzip.compress(TREC.encode()))
    (folder / "qrels" / "train.txt").write_text(TREC, encoding="utf-8")
    (folder / "qrels" / "test.jsonl").write_text("is not read beside test.tsv", encoding="utf-8")
    assert find_splits(folder) == ["dev", "test", "train"]
    assert read_set(folder, ["dev", "train"]).qrels == {"dev": QRELS, "train": QRELS}
    with pytest.raises(ValueError, match=r"valid\.tsv does not exist; .* are dev, test, train"):
        read_set(folder, ["valid"])


def test_only_what_is_judged_is_kept_for_training(tmp_path: Path) -> None:
    assert set(read_set(write(tmp_path), for_training=True).documents) == {"d1", "d2"}
    folder = write(
        tmp_path / "empty", qrels="q1\td1\t1\nq3\td1\t1", corpus='{"_id": "d1", "text": " "}'
    )
    with pytest.raises(
        ValueError, match=r"queries\.jsonl:3: 'q3' is judged and has no text"
    ) as error:
        read_set(folder, for_training=True)
    assert "corpus.jsonl:1: 'd1' is judged and has no text" in str(error.value)


HALF = '"\\ud83d of a pair"'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'{{"_id": "d9", "text": {HALF}}}', r'"text" contains \\ud83d, one half'),
        (f'{{"_id": "d9", "title": {HALF}, "text": ""}}', r'"title" contains \\ud83d, one half'),
        (f'{{"_id": {HALF}, "text": "x"}}', r'"_id" contains \\ud83d, one half'),
        ('{"_id": "d9", "text": "a\\u0000b"}', r'"text" contains a NUL character'),
        ('{"_id": "d9", "text": ["x"]}', r'"text" must be a text, got \["x"\]|\[\'x\'\]'),
        ('{"_id": 1.5, "text": "x"}', r'"_id" must be a text or a whole number, got 1\.5'),
        ('{"_id": true, "text": "x"}', r'"_id" must be a text or a whole number, got True'),
        ('{"_id": " ", "text": "x"}', r'"_id" is empty'),
        ('{"_id": null, "text": "x"}', r"missing id \(_id, docid, "),
        ('{"_id": "d9"}', r'missing field "text"'),
        ('{"_id": "d9", "_id": "d8", "text": "x"}', r'"_id" occurs twice'),
        ('{"_id": "d9", "text": "x"', r"not JSON"),
        ("[1]", r"expected an object|array"),
    ],
)  # fmt: skip
def test_a_bad_document_is_named(tmp_path: Path, line: str, message: str) -> None:
    folder = write(tmp_path, corpus=lines(DOCUMENTS) + line)
    for read in (lambda: read_set(folder), lambda: read_corpus(folder / "corpus.jsonl")):
        with pytest.raises(ValueError, match=r"corpus\.jsonl:4: .*?(" + message + ")"):
            read()


def test_whatever_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no corpus\.jsonl"):
        read_corpus(tmp_path)
    with pytest.raises(ValueError, match=r"nowhere\.jsonl does not exist"):
        read_corpus(tmp_path / "nowhere.jsonl")
    (tmp_path / "corpus.csv").write_text("a,b")
    with pytest.raises(
        ValueError, match=r"corpus\.csv: documents and queries are read from \.json"
    ):
        read_corpus(tmp_path / "corpus.csv")
    with pytest.raises(ValueError, match=r"has no judgements: a BEIR folder has") as error:
        read_set(tmp_path)
    assert "has no queries.jsonl" in str(error.value)
    with pytest.raises(ValueError, match=r"a BEIR folder has"):
        find_splits(tmp_path)
