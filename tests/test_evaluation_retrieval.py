"""Reading a BEIR folder, ranking everything exactly, reranking what was found."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from encoders import Embedder, Reranker
from evaluation import RetrievalData, read_beir, rerank, retrieve
from evaluation.metrics import order
from evaluation.retrieval import search

DOCUMENTS = {
    "d1": "the capital of France is Paris",
    "d2": "a cat sat on the mat",
    "文1": "北京是中国的首都",
    "文2": "猫坐在垫子上",
}
QUERIES = {"q1": "capital of France", "问1": "中国的首都", "q2": "not judged"}
QRELS = {"q1": {"d1": 1}, "问1": {"文1": 2, "d1": 0}}


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


@pytest.fixture
def data() -> RetrievalData:
    return RetrievalData(DOCUMENTS, {query: QUERIES[query] for query in QRELS}, QRELS)


def test_read_beir(tmp_path: Path, data: RetrievalData) -> None:
    assert read_beir(write_beir(tmp_path / "set")) == data


def test_read_beir_puts_the_title_first_and_takes_bom_and_crlf(tmp_path: Path) -> None:
    corpus = (
        '\ufeff{"_id": "d1", "title": "Paris", "text": "a city"}\r\n\r\n{"_id": "文1", "text": ""}'
    )
    qrels = "query-id\tcorpus-id\tscore\r\nq1\td1\t1\r\n"
    read = read_beir(write_beir(tmp_path / "set", corpus=corpus, qrels=qrels))
    assert read.documents == {"d1": "Paris a city", "文1": ""}
    assert read.qrels == {"q1": {"d1": 1}}


def test_a_sample_is_spread_evenly() -> None:
    qrels = {f"q{n}": {"d1": n} for n in range(9)}
    whole = RetrievalData(DOCUMENTS, dict.fromkeys(qrels, "x"), qrels)
    sample = whole.sample(3)
    assert list(sample.queries) == ["q0", "q4", "q8"]
    assert sample.qrels == {"q0": {"d1": 0}, "q4": {"d1": 4}, "q8": {"d1": 8}}
    assert sample.documents == DOCUMENTS
    assert whole.sample(None) == whole.sample(100) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qrels": "q1\tnowhere\t1"}, "test.tsv:1: the corpus-id 'nowhere' is not in corpus.jsonl"),
        (
            {"qrels": "q1\td1\t1\n谁\td1\t1"},
            "test.tsv:2: the query-id '谁' is not in queries.jsonl",
        ),
        ({"qrels": "q1\td1\thigh"}, "test.tsv:1: the score must be an integer, got 'high'"),
        ({"qrels": "q1 d1 1"}, "test.tsv:1: expected query-id, corpus-id and score"),
        ({"qrels": "query-id\tcorpus-id\tscore\n"}, "test.tsv has no judgements"),
        ({"corpus": '{"_id": "d1", "text": "x"'}, "corpus.jsonl:1: not a JSON object"),
        ({"corpus": '["d1"]'}, "corpus.jsonl:1: expected an object, got list"),
        ({"corpus": '{"_id": 1, "text": "x"}'}, "corpus.jsonl:1: '_id' must be a string, got 1"),
        ({"corpus": '{"_id": "d"}'}, "corpus.jsonl:1: 'text' must be a string, got None"),
        ({"queries": '{"_id": "q", "text": ""}\n' * 2}, "queries.jsonl:2: the id 'q' is repeated"),
        ({"corpus": "\n"}, "corpus.jsonl is empty"),
    ],
)
def test_read_beir_names_file_and_line(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    folder = write_beir(tmp_path / "set", **changes)
    with pytest.raises(ValueError) as error:
        read_beir(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_read_beir_names_another_encoding(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "set")
    (folder / "queries.jsonl").write_bytes('{"_id": "q1", "text": "首都"}'.encode("gb18030"))
    with pytest.raises(ValueError, match=r"queries\.jsonl:1: not UTF-8"):
        read_beir(folder)


def test_read_beir_names_a_missing_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"qrels/dev\.tsv does not exist"):
        read_beir(write_beir(tmp_path / "set"), split="dev")


@pytest.mark.parametrize("k", [1, 3, 10, 40])
@pytest.mark.parametrize("at_once", [1, 100, 2**24])
def test_search_equals_sorting_everything(
    k: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.retrieval.SCORES_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    # Small integers: many exact ties, also over the k-th place.
    queries = torch.randint(-2, 3, (7, 4), generator=generator).float()
    documents = torch.randint(-2, 3, (30, 4), generator=generator).float()
    ids = [f"d{number}" for number in torch.randperm(30, generator=generator).tolist()]
    expected = [
        order(dict(zip(ids, (documents @ query).tolist(), strict=True)))[:k] for query in queries
    ]
    assert search(queries, documents, ids, k) == expected


def test_search_of_a_collapsed_model_orders_by_id() -> None:
    assert search(torch.ones(1, 2), torch.ones(4, 2), ["b", "d", "a", "c"], 2) == [["d", "c"]]


def test_search_refuses_a_diverged_model() -> None:
    with pytest.raises(ValueError, match="document vectors have NaN or infinity"):
        search(torch.ones(1, 2), torch.tensor([[1.0, float("nan")]]), ["a"], 1)


def test_retrieve_equals_the_double_loop(tiny_bert: Path, data: RetrievalData) -> None:
    embedder = Embedder.from_pretrained(str(tiny_bert))
    found = retrieve(embedder, data, k=3)
    for query, text in data.queries.items():
        cosines = {
            document: (embedder.encode([text])[0] @ embedder.encode([body])[0]).item()
            for document, body in data.documents.items()
        }
        assert found[query] == order(cosines)[:3]


def test_rerank_orders_the_top_and_leaves_the_rest(
    tiny_classifier: Path, data: RetrievalData
) -> None:
    reranker = Reranker.from_pretrained(str(tiny_classifier))
    rankings = {"q1": ["d1", "d2", "文1", "文2"], "问1": ["文2"]}
    found = rerank(reranker, data, rankings, top_k=3)
    scores = {
        document: reranker.score([(data.queries["q1"], DOCUMENTS[document])]).item()
        for document in rankings["q1"][:3]
    }
    assert found == {"q1": [*order(scores), "文2"], "问1": ["文2"]}


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
