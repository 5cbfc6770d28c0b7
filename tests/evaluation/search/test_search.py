"""Exact search against sorting everything; what it refuses; its memory; FAISS beside it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.ranking import order
from evaluation.search.exact import search
from evaluation.search.faiss_index import IndexKind, build_index, search_index
from runs import ROOT


def naive(
    queries: torch.Tensor, documents: torch.Tensor, ids: Sequence[str], k: int
) -> list[dict[str, float]]:
    """Score everything, sort everything."""
    found = []
    for query in queries.double():
        scores = dict(
            zip(ids, (documents.double() * query).sum(dim=1).float().tolist(), strict=True)
        )
        found.append({document: scores[document] for document in order(scores)[:k]})
    return found


def assert_same(run: dict[str, dict[str, float]], expected: list[dict[str, float]]) -> None:
    """Same documents, in the same order, with the same scores to the last bit."""
    assert [list(found.items()) for found in run.values()] == [
        list(found.items()) for found in expected
    ]


@given(
    seed=st.integers(0, 2**32),
    queries=st.integers(1, 9),
    documents=st.integers(1, 60),
    width=st.integers(1, 5),
    k=st.integers(1, 70),
    at_once=st.tuples(st.integers(1, 70), st.integers(1, 9)),
    levels=st.sampled_from([1, 2, 5, 1000]),
    form=st.sampled_from(["tensor", "array", "blocks"]),
)
def test_search_equals_sorting_everything_for_any_block_size(
    seed: int,
    queries: int,
    documents: int,
    width: int,
    k: int,
    at_once: tuple[int, int],
    levels: int,
    form: str,
) -> None:
    """Few levels of the numbers make ties everywhere, over the k-th place and block ends too."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows: int) -> torch.Tensor:
        whole = torch.randint(-levels, levels + 1, (rows, width), generator=generator)
        return whole.float() / 7  # not exact in binary: rounding has its chance

    left, right = draw(queries), draw(documents)
    ids = [f"d{number}" for number in torch.randperm(documents, generator=generator).tolist()]
    query_ids = [f"q{number}" for number in range(queries)]
    given_as = {
        "tensor": right,
        "array": right.numpy(),
        "blocks": iter(right.split(max(1, documents // 3))),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.search.exact.DOCUMENTS_AT_ONCE", at_once[0])
        patch.setattr("evaluation.search.exact.QUERIES_AT_ONCE", at_once[1])
        found = search(left, given_as[form], ids, k, query_ids=query_ids)
    assert list(found) == query_ids
    assert_same(found, naive(left, right, ids, k))


@pytest.mark.parametrize("many", [0.0, 1.1])
def test_both_ways_to_compute_scores_give_the_same(
    many: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Score by score, or by one product of matrices; near ones of one cloud, and copies."""
    monkeypatch.setattr("evaluation.search.top_k.MANY", many)
    monkeypatch.setattr("evaluation.search.exact.DOCUMENTS_AT_ONCE", 100)
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn(1, 64, generator=generator)
    queries = middle + 0.01 * torch.randn(20, 64, generator=generator)
    documents = (middle + 0.01 * torch.randn(300, 64, generator=generator)).repeat(2, 1)
    ids = [f"{number:03}" for number in torch.randperm(600, generator=generator).tolist()]
    found = search(queries, documents, ids, 25, query_ids=[str(n) for n in range(20)])
    assert_same(found, naive(queries, documents, ids, 25))


def test_imprecise_products_change_nothing() -> None:
    """A process may let products of float32 be rounded to bf16."""
    generator = torch.Generator().manual_seed(0)
    queries, documents = (torch.randn(n, 32, generator=generator) for n in (5, 400))
    ids = [str(number) for number in range(400)]
    whole = torch.Tensor.__matmul__

    def rounded(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype == torch.float64:
            return whole(left, right)
        return whole(left.bfloat16().float(), right.bfloat16().float())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "__matmul__", rounded)
        found = search(queries, documents, ids, 10, query_ids=list("abcde"))
    assert_same(found, naive(queries, documents, ids, 10))


def test_search_of_a_collapsed_model_orders_by_id() -> None:
    found = search(torch.ones(1, 2), torch.ones(4, 2), ["b", "d", "a", "文"], 2, query_ids=["q"])
    assert list(found["q"]) == ["文", "d"]
    minus = search(torch.zeros(1, 2), -torch.ones(4, 2), ["b", "d", "a", "c"], 4, query_ids=["q"])
    assert list(minus["q"]) == ["d", "c", "b", "a"]  # -0.0 is 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_a_diverged_model_is_refused_by_the_text_id(
    value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.search.exact.DOCUMENTS_AT_ONCE", 2)
    good, bad = torch.ones(3, 2), torch.tensor([[1.0, 1], [1, 1], [1, value]])
    with pytest.raises(ValueError, match=r"vectors of 1 texts .* the document '文三'\): the model"):
        search(good, bad, ["一", "二", "文三"], 1, query_ids=["q1", "q2", "q3"])
    with pytest.raises(ValueError, match=r"the query 'q3'"):
        search(bad, good, ["a", "b", "c"], 1, query_ids=["q1", "q2", "q3"])


def test_what_does_not_fit_together_is_refused() -> None:
    one = torch.ones(1, 2)
    with pytest.raises(ValueError, match="there are more documents than the 1 ids"):
        search(one, torch.ones(2, 2), ["a"], 1, query_ids=["q"])
    with pytest.raises(ValueError, match=r"there are 1 documents and 2 ids"):
        search(one, one, ["a", "b"], 1, query_ids=["q"])
    with pytest.raises(ValueError, match="ids of the documents are not unique"):
        search(one, torch.ones(2, 2), ["a", "a"], 1, query_ids=["q"])
    with pytest.raises(ValueError, match=r"2 dimensions, but .* shape \(1, 3\)"):
        search(one, torch.ones(1, 3), ["a"], 1, query_ids=["q"])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        search(one, one, ["a"], 0, query_ids=["q"])


def test_no_documents_are_no_results() -> None:
    assert search(torch.ones(1, 2), torch.ones(0, 2), [], 3, query_ids=["q"]) == {"q": {}}


MEASURED = """
import resource, sys
import numpy as np, torch
from evaluation.search.exact import search
torch.set_num_threads(2)
documents, width = 200_000, 128
def blocks():
    generator = np.random.default_rng(0)
    for _ in range(0, documents, 10_000):
        yield generator.standard_normal((10_000, width), dtype=np.float32)
queries = torch.randn(200, width, generator=torch.Generator().manual_seed(0))
ids = [str(number) for number in range(documents)]
search(queries[:2], next(blocks()), ids[:10_000], 100, query_ids=["0", "1"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = search(queries, blocks(), ids, 100, query_ids=ids[:200])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert all(len(scores) == 100 for scores in found.values())
print((after - before) / 1024)
"""


def test_blocks_are_searched_in_bounded_memory() -> None:
    """Vectors of 98 MiB, of which at no time more than some blocks are held."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 70


@pytest.fixture(scope="module")
def clusters() -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Queries and documents about the same hundred things."""
    generator = torch.Generator().manual_seed(0)
    topics = torch.randn(100, 32, generator=generator)
    documents = topics.repeat(50, 1) + 0.3 * torch.randn(5000, 32, generator=generator)
    queries = topics + 0.3 * torch.randn(100, 32, generator=generator)
    unit = torch.nn.functional.normalize
    return unit(queries), unit(documents), [f"文{number}" for number in range(5000)]


@pytest.mark.parametrize(
    ("kind", "least"), [("flat", 1.0), ("ivf", 0.95), ("hnsw", 0.95), ("ivf_sq8", 0.95)]
)
def test_faiss_finds_nearly_what_exact_search_finds(
    kind: IndexKind,
    least: float,
    clusters: tuple[torch.Tensor, torch.Tensor, list[str]],
    tmp_path: Path,
) -> None:
    pytest.importorskip("faiss")
    queries, documents, ids = clusters
    query_ids = [str(number) for number in range(len(queries))]
    exact = search(queries, documents, ids, 10, query_ids=query_ids)
    file = np.memmap(tmp_path / "vectors", dtype=np.float32, mode="w+", shape=documents.shape)
    file[:] = documents.numpy()
    found = search_index(build_index(file, kind), queries, ids, 10, query_ids=query_ids)
    shares = [len(exact[query].keys() & found[query].keys()) / 10 for query in query_ids]
    assert np.mean(shares) >= least
    for query in query_ids:
        assert list(found[query]) == order(found[query])
        for document in exact[query].keys() & found[query].keys():
            error = 1e-2 if kind == "ivf_sq8" else 1e-6  # one byte for each dimension
            assert found[query][document] == pytest.approx(exact[query][document], abs=error)


def test_faiss_orders_ties_by_id_and_skips_what_it_lacks() -> None:
    pytest.importorskip("faiss")
    ids = ["b", "d", "a", "c"]
    for kind in ("flat", "ivf", "hnsw"):
        index = build_index(torch.ones(4, 2), kind)
        found = search_index(index, torch.ones(1, 2), ids, 10, query_ids=["q"])
        assert list(found["q"]) == ["d", "c", "b", "a"]


def test_an_unknown_kind_of_index_is_refused() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="'tree' is not one of flat, ivf, ivf_sq8, hnsw"):
        build_index(torch.ones(4, 2), "tree")  # type: ignore[arg-type]
