"""Reading a BEIR folder, and all that is wrong with it at once; its forms: tests/loaders/beir."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation import RetrievalData, read_beir, read_corpus

DOCUMENTS = {
    "d1": "the capital of France is Paris",
    "d2": "a cat sat on the mat",
    "文1": "北京是中国的首都",
    "文2": "猫坐在垫子上",
}
QUERIES = {"q1": "capital of France", "问1": "中国的首都", "q2": "not judged"}
QRELS: dict[str, dict[str, float]] = {"q1": {"d1": 1}, "问1": {"文1": 2, "d1": 0}}


def write_beir(folder: Path, **changes: str) -> Path:
    """Write the set above; ``changes`` replaces the text of corpus, queries or qrels."""
    corpus = [{"_id": key, "title": "", "text": text} for key, text in DOCUMENTS.items()]
    queries = [{"_id": key, "text": text} for key, text in QUERIES.items()]
    rows = [(q, d, str(rel)) for q, judged in QRELS.items() for d, rel in judged.items()]
    files = {
        "corpus": "\n".join(json.dumps(row, ensure_ascii=False) for row in corpus),
        "queries": "\n".join(json.dumps(row, ensure_ascii=False) for row in queries),
        "qrels": "\n".join("\t".join(row) for row in [("query-id", "corpus-id", "score"), *rows]),
    } | changes
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(files["corpus"], encoding="utf-8")
    (folder / "queries.jsonl").write_text(files["queries"], encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(files["qrels"], encoding="utf-8")
    return folder


def mistake(folder: Path, **changes: str) -> str:
    """What reading the set with these changes says: one line."""
    with pytest.raises(ValueError) as error:
        read_beir(write_beir(folder / "set", **changes))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_is_read(tmp_path: Path) -> None:
    queries = {query: QUERIES[query] for query in QRELS}
    folder = write_beir(tmp_path / "set")
    assert read_beir(folder) == RetrievalData(DOCUMENTS, queries, QRELS, split="test")
    assert read_corpus(folder) == read_corpus(folder / "corpus.jsonl") == DOCUMENTS


def test_the_title_stands_first_and_bom_and_crlf_are_taken(tmp_path: Path) -> None:
    corpus = (
        '\ufeff{"_id": "d1", "title": "Paris", "text": "a city"}\r\n\r\n'
        '{"_id": "文1", "title": null, "text": ""}'
    )
    qrels = "query-id\tcorpus-id\tscore\r\nq1\td1\t1\r\n"
    read = read_beir(write_beir(tmp_path / "set", corpus=corpus, qrels=qrels))
    assert read.documents == {"d1": "Paris a city", "文1": ""}
    assert read.qrels == {"q1": {"d1": 1}}


def test_fractions_and_what_is_judged_twice_alike(tmp_path: Path) -> None:
    qrels = "q1\t0\td1\t0.5\n问1\t0\t文1\t-1\n问1\t0\t文1\t-1.0\n"
    read = read_beir(write_beir(tmp_path / "set", qrels=qrels))
    assert read.qrels == {"q1": {"d1": 0.5}, "问1": {"文1": -1}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qrels": "q1\td1\tinf"}, "test.tsv:1: the score must be a number up to 1e+30, got 'inf'"),
        ({"corpus": '{"_id": "d", "title": 1, "text": ""}'}, '"title" must be a text, got 1'),
        (
            {"queries": '{"_id": "问", "text": "x"}\n' * 2},
            "queries.jsonl: 1 ids are repeated, and ids must be unique: '问'",
        ),
        ({"corpus": "\n"}, "corpus.jsonl is empty"),
        ({"queries": ""}, "queries.jsonl is empty"),
    ],
)
def test_file_and_line_of_a_mistake_are_named(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    assert message in mistake(tmp_path, **changes)


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    said = mistake(
        tmp_path,
        corpus='{"_id": "d1", "text": "x"}\n{"_id": "d1", "text": "y"}\n{"_id": "d2"}',
        queries='{"_id": "q1", "text": ""}',
        qrels="q1\td1\t1\nq1\td2\tmuch\nq1\tnowhere\t1\n谁\td1\t1",
    )
    for part in (
        'corpus.jsonl:3: missing field "text"',
        "test.tsv:2: the score must be a number",
        "1 ids are repeated, and ids must be unique: 'd1'",
        "queries.jsonl:1: 'q1' is judged and has no text",
        "1 judgements name 1 queries that queries.jsonl does not have: '谁'",
        "1 judgements name 1 documents that corpus.jsonl does not have: 'nowhere'",
    ):
        assert part in said


def test_of_many_mistakes_ten_are_shown(tmp_path: Path) -> None:
    said = mistake(tmp_path, qrels="\n".join(f"q1\td1\tbad{number}" for number in range(25)))
    assert said.count("must be a number") == 10
    assert "and 15 more lines like these" in said


def test_ids_that_could_not_be_read_are_not_called_unknown(tmp_path: Path) -> None:
    """Whatever is wrong with the corpus, the judgements need not be."""
    said = mistake(tmp_path, corpus='{"_id": "d1", "text": "x"}\n{"_id": "文1", "text"')
    assert "corpus.jsonl:2: not JSON: " in said
    assert "does not have" not in said


UNKNOWN = "\n".join(
    [
        *(f"q1\tx{number}\t1" for number in range(12)),
        "问1\tx0\t1",
        "谁\td1\t1",
        "谁\td2\t1",
        "q1\td1\t1",
    ]
)


def test_judgements_of_what_does_not_exist_are_counted_and_listed(tmp_path: Path) -> None:
    said = mistake(tmp_path, qrels=UNKNOWN)
    assert "2 judgements name 1 queries that queries.jsonl does not have: '谁'" in said
    assert "13 judgements name 12 documents that corpus.jsonl does not have: 'x0', 'x1'" in said
    assert "'x9', and 2 more; repair the ids, or leave these out (allow_unknown)" in said
    assert "x10" not in said


def test_they_can_be_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = read_beir(write_beir(tmp_path / "set", qrels=UNKNOWN), allow_unknown=True)
    assert read.qrels == {"q1": {"d1": 1}}
    assert list(read.queries) == ["q1"]
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "13 judgements name 12 documents" in warning.getMessage()
    assert "2 judgements name 1 queries" in warning.getMessage()
    nothing = write_beir(tmp_path / "nothing", qrels="谁\td1\t1")
    with pytest.raises(ValueError, match="none of its judgements refers"):
        read_beir(nothing, allow_unknown=True)


def test_another_encoding_is_named(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "set")
    (folder / "queries.jsonl").write_bytes('{"_id": "q1", "text": "首都"}'.encode("gb18030"))
    with pytest.raises(ValueError, match=r"queries\.jsonl is not in UTF-8 but probably in GB18030"):
        read_beir(folder)


def test_a_sample_is_spread_evenly() -> None:
    qrels: dict[str, dict[str, float]] = {f"q{n}": {"d1": n} for n in range(9)}
    candidates = {query: ["d2", "d1"] for query in qrels}
    prompts = {"q4": "find: "}
    queries = dict.fromkeys(qrels, "x")
    whole = RetrievalData(DOCUMENTS, queries, qrels, candidates=candidates, prompts=prompts)
    sample = whole.sample(3)
    assert list(sample.queries) == ["q0", "q4", "q8"]
    assert sample.qrels == {"q0": {"d1": 0}, "q4": {"d1": 4}, "q8": {"d1": 8}}
    assert sample.candidates == {query: ["d2", "d1"] for query in sample.queries}
    assert sample.documents == DOCUMENTS
    assert sample.prompts == prompts
    assert whole.sample(None) == whole.sample(100) == whole


@pytest.mark.realdata
def test_scifact_is_read_whole(realdata: Callable[[str], Path]) -> None:
    read = read_beir(realdata("scifact"), "test")
    assert (len(read.documents), len(read.queries)) == (5183, 300)
    assert sum(map(len, read.qrels.values())) == 339


@pytest.mark.realdata
def test_cn_medical_qa_is_read_whole(realdata: Callable[[str], Path]) -> None:
    read = read_beir(realdata("cn_medical_qa"), "dev")
    assert len(read.documents) == 7244
    assert sum(map(len, read.qrels.values())) == 699


@pytest.mark.realdata
def test_a_corpus_of_mldr_is_read(realdata: Callable[[str], Path]) -> None:
    (text,) = read_corpus(realdata("mldr_sample/mldr_en_corpus_row0.jsonl")).values()
    assert text.startswith("Mars Hill Church was a Christian megachurch")
