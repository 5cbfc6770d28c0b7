"""Metrics without a value: in results, tables, report, figures, card and the choice of a model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from rich.console import Console
from scipy.special import expit

from common.run_files import BEST_FILE
from evaluation.checkpoints import choose_best, write_best
from evaluation.data.sets import PairData, RetrievalData
from evaluation.measure import PairScores, evaluate_run
from evaluation.metrics.comparison import compare_statistic
from evaluation.metrics.pairs import UndefinedMetric, auc, spearman
from evaluation.report.report import write_report
from evaluation.report.tables import show_comparison
from evaluation.results import Results, Subject
from evaluation.summary import pair_results, ranking_results
from measured import undefined
from trainers.model_card.evaluation import add_evaluation

SUBJECT = Subject(
    kind="embedder", data="d", split="test", task="pairs", models={"fine-tuned": "a", "base": "b"}
)


def scores(*values: float) -> PairScores:
    logits = np.array(values)
    return PairScores(logits, expit(logits))


def judged(*labels: float) -> PairData:
    return PairData(["q"] * len(labels), ["d"] * len(labels), list(labels))


def strict(results: Results) -> Any:
    """The content of evaluation.json, which has only what JSON has, and all of the results."""
    content = json.loads(json.dumps(results.to_json(), allow_nan=False))
    assert Results.from_json(content) == results
    return content


def test_pairs_of_one_class_or_one_score() -> None:
    varied, constant = scores(1, 2, 3, 4), scores(5, 5, 5, 5)
    found = strict(pair_results({"fine-tuned": varied}, judged(1, 1, 1, 1), SUBJECT))
    assert found["metrics"]["auc"] == {
        "fine-tuned": None, "undefined": "all 4 judgements are 1"
    }  # fmt: skip
    data = judged(0, 0, 1, 1)
    found = strict(pair_results({"fine-tuned": varied, "base": constant}, data, SUBJECT))
    assert found["metrics"]["auc"] == {
        "base": None, "fine-tuned": 1.0, "undefined": "base: all 4 scores are 5"
    }  # fmt: skip
    both = strict(pair_results({"fine-tuned": varied, "base": scores(1, 2, 4, 3)}, data, SUBJECT))
    assert both["metrics"]["auc"]["low"] <= both["metrics"]["auc"]["high"]


@pytest.mark.parametrize("statistic", [auc, spearman])
def test_draws_without_a_value_are_drawn_again(statistic: Any) -> None:
    """Of two pairs, half of the draws have one judgement only, and half of the swaps one score."""
    labels = np.array([0.0, 1.0])
    found = compare_statistic(statistic, np.array([2.0, 1.0]), np.array([1.0, 2.0]), labels, 50)
    assert (found.low, found.high) == (found.difference, found.difference)
    with pytest.raises(UndefinedMetric, match="all 2 scores are 1"):
        compare_statistic(statistic, np.ones(2), np.array([1.0, 2.0]), labels, 50)


def ranking(run: dict[str, dict[str, float]], **changes: Any) -> Any:
    qrels = {query: {"d1": 0.25, "d2": -1.0} for query in run}
    data = RetrievalData({"d1": "x", "d2": "y"}, dict.fromkeys(run, "q"), qrels, **changes)
    both = evaluate_run(run, data, ["mrr@10", "ndcg@10"])
    subject = replace(SUBJECT, task="retrieval")
    return strict(ranking_results({"fine-tuned": both, "base": both}, data, subject))


def test_nothing_is_relevant() -> None:
    found = ranking({"q1": {"d1": 1.0}, "q2": {"d2": 1.0}}, relevant_from=0.5)
    assert found["metrics"]["mrr@10"] == {
        "base": None,
        "fine-tuned": None,
        "undefined": "no query has a relevant document: no judgement exceeds 0.25",
    }
    assert found["metrics"]["ndcg@10"]["fine-tuned"] == 0.5  # grades have gains below the threshold


def test_one_query_has_values_but_no_interval() -> None:
    found = ranking({"q1": {"d1": 1.0}})
    assert found["metrics"]["mrr@10"] == {
        "base": 1.0,
        "fine-tuned": 1.0,
        "undefined": "the interval of a difference needs at least 2 queries, got 1",
    }


# What is told


def test_tables_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(Results.from_json(undefined()), Console(width=120))
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if line.startswith("│ auc")]
    assert row.split() == ["│", "auc", "│", "undefined", "│", "0.750", "│", *["undefined", "│"] * 2]
    assert "undefined: auc (base: all 4 scores are <0>)" in out
    assert "undefined: accuracy (too few pairs differ)" in out


@pytest.mark.parametrize(
    ("language", "said"), [("en", "Undefined: auc (base"), ("zh", "无定义：auc（base")]
)
def test_the_report_says_so(tmp_path: Path, language: Any, said: str) -> None:
    page = write_report(tmp_path, Results.from_json(undefined()), None, language).read_text(
        encoding="utf-8"
    )
    assert f"{said}: all 4 scores are &lt;0&gt;" in page
    assert page.count("undefined" if language == "en" else "无定义<") >= 4
    nothing = undefined()
    nothing["metrics"] = {"auc": {"base": None, "fine-tuned": None, "undefined": "one class"}}
    nothing["main_metric"] = "auc"
    page = write_report(tmp_path, Results.from_json(nothing), None, language).read_text(
        encoding="utf-8"
    )
    assert "one class" in page


def test_the_card_says_so(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n", encoding="utf-8")
    add_evaluation(tmp_path, Results.from_json(undefined()))
    card = ModelCard.load(tmp_path / "README.md")
    assert "| auc | undefined | 0.750 | undefined | undefined |" in card.text
    assert (
        "Undefined: auc (base: all 4 scores are <0>); accuracy (too few pairs differ)." in card.text
    )
    assert [r.metric_type for r in card.data.eval_results] == ["spearman", "auc", "accuracy"]
    alone = undefined()
    alone["models"].pop("base")
    alone["metrics"] = {"auc": {"fine-tuned": None, "undefined": "one class"}}
    add_evaluation(tmp_path, Results.from_json(alone))
    card = ModelCard.load(tmp_path / "README.md")
    assert "| auc | undefined |" in card.text and not card.data.eval_results


def test_a_checkpoint_without_a_value_is_not_the_best(tmp_path: Path) -> None:
    values: dict[str, float | str]
    values = {"checkpoint-2": "all 4 scores are 1", "checkpoint-4": 0.5, "checkpoint-6": 0.75}
    assert choose_best(values, lower_is_better=False) == "checkpoint-6"
    assert choose_best(values, lower_is_better=True) == "checkpoint-4"
    assert choose_best({"checkpoint-2": "one class"}, lower_is_better=False) is None
    write_best(tmp_path, "checkpoint-6", "auc", values, "data")
    found = json.loads((tmp_path / BEST_FILE).read_text(encoding="utf-8"))
    assert found["all"] == {"checkpoint-2": None, "checkpoint-4": 0.5, "checkpoint-6": 0.75}
