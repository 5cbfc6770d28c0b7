"""The same numbers as trec_eval, ranx and scikit-learn have, to 1e-9."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

# ranx as plain Python: to compile it takes a minute, to run it on this little nothing.
os.environ["NUMBA_DISABLE_JIT"] = "1"

import ranx

from evaluation.metrics.ranking import Qrels, Run, order, per_query

Judged = dict[str, dict[str, int]]

TREC_EVAL = {
    "ndcg@{k}": "ndcg_cut.{k}",
    "recall@{k}": "recall.{k}",
    "precision@{k}": "P.{k}",
    "map@{k}": "map_cut.{k}",
    "hit_rate@{k}": "success.{k}",
    "ndcg": "ndcg",
    "map": "map",
    "mrr": "recip_rank",
}
RANX = {
    "ndcg@{k}": "ndcg@{k}",
    "ndcg_exp@{k}": "ndcg_burges@{k}",
    "recall@{k}": "recall@{k}",
    "precision@{k}": "precision@{k}",
    "mrr@{k}": "mrr@{k}",
    "map@{k}": "map@{k}",
    "hit_rate@{k}": "hit_rate@{k}",
    "ndcg": "ndcg",
    "map": "map",
    "mrr": "mrr",
}

documents = st.sampled_from([f"d{number}" for number in range(12)] + ["文一", "文二", "😀"])
# Few distinct scores, and such as only a float64 can tell apart: ties.
scores = st.sampled_from([-0.75, -0.0, 0.0, 0.25, 0.25 + 1e-9, 0.25 - 1e-9, 0.5, 3e20])
rankings = st.dictionaries(documents, scores)
judgements = st.dictionaries(documents, st.integers(-1, 3))
queries = st.sampled_from(["q1", "q2", "q3", "问"])
runs = st.dictionaries(queries, rankings)
qrels_of_queries = st.dictionaries(queries, judgements, min_size=1)


def trec_eval(run: Run, qrels: Judged, measure: str, relevant_from: int = 1) -> list[float]:
    """One measure for each query; as by ``-c``, what it leaves out has 0.

    It is not given queries without a judgement of 0 or more: it reads memory that it did not set,
    and gives wrong figures of the others (cvangysel/pytrec_eval#49) or never ends.
    """
    judged = {
        query: grades for query, grades in qrels.items() if max(grades.values(), default=-1) >= 0
    }
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {measure}, relevance_level=relevant_from)
    found = evaluator.evaluate({query: dict(ranked) for query, ranked in run.items()})
    name = measure.replace(".", "_")
    return [found.get(query, {}).get(name, 0.0) for query in qrels]


def judged_in(run: Run, qrels: Qrels) -> bool:
    """Not a run of other queries, which is refused."""
    return not run or not run.keys().isdisjoint(qrels)


@given(run=runs, qrels=qrels_of_queries, k=st.integers(1, 16))
def test_trec_eval_agrees(run: Run, qrels: Judged, k: int) -> None:
    assume(judged_in(run, qrels))
    names = {ours.format(k=k): theirs.format(k=k) for ours, theirs in TREC_EVAL.items()}
    found = per_query(run, qrels, list(names))
    for ours, theirs in names.items():
        assert found[ours].tolist() == pytest.approx(trec_eval(run, qrels, theirs), abs=1e-9), ours


@given(run=runs, qrels=qrels_of_queries, k=st.integers(1, 16))
def test_trec_eval_agrees_on_what_it_has_not_by_name(run: Run, qrels: Judged, k: int) -> None:
    assume(judged_in(run, qrels))
    found = per_query(run, qrels, [f"mrr@{k}", f"ndcg_exp@{k}"])
    # Its reciprocal rank has no cut: it is given the documents above ours.
    cut = {
        query: {name: ranked[name] for name in order(ranked)[:k]} for query, ranked in run.items()
    }
    expected = trec_eval(cut, qrels, "recip_rank")
    assert found[f"mrr@{k}"].tolist() == pytest.approx(expected, abs=1e-9)
    # Its gain is linear: it is given the gains.
    gains = {
        query: {name: 2**grade - 1 if grade > 0 else 0 for name, grade in judged.items()}
        for query, judged in qrels.items()
    }
    expected = trec_eval(run, gains, f"ndcg_cut.{k}")
    assert found[f"ndcg_exp@{k}"].tolist() == pytest.approx(expected, abs=1e-9)


@given(run=runs, qrels=qrels_of_queries, level=st.integers(1, 3))
def test_trec_eval_agrees_on_grades_and_levels(run: Run, qrels: Judged, level: int) -> None:
    assume(judged_in(run, qrels))
    quarters = {
        query: {name: grade / 4 for name, grade in judged.items()}
        for query, judged in qrels.items()
    }
    names = {ours.format(k=5): theirs.format(k=5) for ours, theirs in TREC_EVAL.items()}
    found = per_query(run, quarters, list(names), relevant_from=level / 4)
    for ours, theirs in names.items():
        expected = trec_eval(run, qrels, theirs, relevant_from=level)
        assert found[ours].tolist() == pytest.approx(expected, abs=1e-9), ours


def ranx_values(run: Run, qrels: Judged, names: list[str]) -> dict[str, list[float]]:
    """Its value for each query, in the order of ``qrels``.

    It does not say how it orders ties: it is given our order as scores.
    """
    ordered = {
        query: {name: -float(place) for place, name in enumerate(order(run[query]))}
        for query in qrels
    }
    found = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(ordered), names, return_mean=False)
    place = {query: at for at, query in enumerate(sorted(qrels))}  # its own order
    return {name: [float(found[name][place[query]]) for query in qrels] for name in names}


@given(
    both=st.dictionaries(
        queries,
        st.tuples(
            st.dictionaries(documents, scores, min_size=1),
            st.dictionaries(documents, st.integers(0, 3), min_size=1),
        ),
        min_size=1,
    ),
    k=st.integers(1, 16),
)
def test_ranx_agrees(both: dict[str, tuple[dict[str, float], dict[str, int]]], k: int) -> None:
    run = {query: ranked for query, (ranked, _) in both.items()}
    qrels = {query: judged for query, (_, judged) in both.items()}
    names = {ours.format(k=k): theirs.format(k=k) for ours, theirs in RANX.items()}
    found, expected = per_query(run, qrels, list(names)), ranx_values(run, qrels, [*names.values()])
    for ours, theirs in names.items():
        assert found[ours].tolist() == pytest.approx(expected[theirs], abs=1e-9), ours


@given(gains=st.lists(st.integers(0, 3), min_size=2, max_size=15), k=st.integers(1, 15))
def test_scikit_learn_agrees(gains: list[int], k: int) -> None:
    places = np.arange(len(gains), 0, -1)
    run = {"q": {f"d{place}": float(place) for place in places}}
    judged = {f"d{place}": gain for place, gain in zip(places, gains, strict=True)}
    found = per_query(run, {"q": judged}, [f"ndcg@{k}"])[f"ndcg@{k}"]
    assert found[0] == pytest.approx(ndcg_score([gains], [places], k=k), abs=1e-9)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["scifact/qrels/test.tsv", "cn_medical_qa/qrels/dev.tsv"])
def test_trec_eval_and_ranx_agree_on_real_judgements(
    realdata: Callable[[str], Path], name: str
) -> None:
    qrels: Judged = {}
    for line in realdata(name).read_text(encoding="utf-8").splitlines()[1:]:
        query, document, relevance = line.split("\t")
        qrels.setdefault(query, {})[document] = int(relevance)
    run = random_run(qrels)
    ours = [name.format(k=10) for name in RANX]
    found = per_query(run, qrels, ours)
    assert 0.1 < found["ndcg@10"].mean() < 0.9
    for metric, theirs in TREC_EVAL.items():
        expected = trec_eval(run, qrels, theirs.format(k=10))
        np.testing.assert_allclose(found[metric.format(k=10)], expected, rtol=0, atol=1e-9)
    theirs_of_ranx = [name.format(k=10) for name in RANX.values()]
    expected_of_ranx = ranx_values(run, qrels, theirs_of_ranx)
    for metric, theirs in zip(ours, theirs_of_ranx, strict=True):
        np.testing.assert_allclose(found[metric], expected_of_ranx[theirs], rtol=0, atol=1e-9)


def random_run(qrels: Judged) -> dict[str, dict[str, float]]:
    """A run with ties that finds what was judged, and what was judged for others."""
    generator = np.random.default_rng(3)
    pool = sorted({document for judged in qrels.values() for document in judged})
    run = {}
    for query, judged in qrels.items():
        found = [*generator.choice(pool, size=100, replace=False), *judged]
        values = generator.integers(0, 40, size=len(found)) / 8
        values[100:] += 2.5  # above the average of the others
        run[query] = {str(name): float(v) for name, v in zip(found, values, strict=True)}
    return run
