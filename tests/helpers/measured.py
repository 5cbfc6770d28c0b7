"""A made-up evaluation.json and a made-up log of a run, for tests of tables, reports and cards."""

from typing import Any

import numpy as np


def results(**changes: Any) -> dict[str, Any]:
    """The content of an evaluation.json, with a hostile query and Chinese texts."""
    counts = {"wins": 312, "losses": 120, "ties": 1768}
    values = ("base", "fine-tuned", "difference", "low", "high", "p_value")
    metrics = {
        "ndcg@10": (0.748, 0.788, 0.04, 0.026, 0.053, 0.0001),
        "map@10": (0.699, 0.694, -0.005, -0.024, 0.012, 0.41),
    }
    scores = np.random.default_rng(0).normal([[0.6], [0.3]], 0.1, (2, 300)).round(6).tolist()
    kinds = dict(zip(("relevant", "irrelevant"), scores, strict=True))
    content = {
        "kind": "embedder",
        "task": "retrieval",
        "data": "data/商品/heldout",
        "split": "test",
        "created": "2026-11-24T10:00:00+00:00",
        "models": {"fine-tuned": "outputs/商品检索", "base": "package://some_package/model"},
        "queries": 2200,
        "documents": 5000,
        "main_metric": "ndcg@10",
        "metrics": {
            name: dict(zip(values, numbers, strict=True)) | counts
            for name, numbers in metrics.items()
        },
        "gained": [changed("q1", "<script>alert('x')</script>", 0.0, 1.0, "<b>bold</b> & more")],
        "lost": [changed("q2", "感冒发烧吃什么药？", 1.0, 0.25, "多喝水。" * 200)],
        "scores": {"base": kinds, "fine-tuned": kinds},
        **changes,
    }
    if "base" not in content["models"]:
        del content["gained"], content["lost"]
        content["metrics"] = {
            name: {"fine-tuned": found["fine-tuned"]} for name, found in content["metrics"].items()
        }
    return content


def changed(name: str, query: str, base: float, tuned: float, relevant: str) -> dict[str, Any]:
    return {
        "query_id": name,
        "query": query,
        "base": base,
        "fine-tuned": tuned,
        "relevant": relevant,
    }


def alone() -> dict[str, Any]:
    """The same without a base."""
    return results(scores={}, models={"fine-tuned": "outputs/商品检索"})


def pairs() -> dict[str, Any]:
    """Judged pairs: no queries to win or lose."""
    found = results(task="pairs", pairs=1500, main_metric="spearman", scores={})
    for name in ("gained", "lost", "queries", "documents"):
        del found[name]
    number = found["metrics"].pop("ndcg@10")
    kept = {k: v for k, v in number.items() if k not in ("wins", "losses", "ties")}
    found["metrics"] = {"spearman": kept}
    return found


def undefined() -> dict[str, Any]:
    """Judged pairs: one metric of the base has no value, another no interval, a third is whole."""
    found = pairs()
    found["metrics"] |= {
        "auc": {"base": None, "fine-tuned": 0.75, "undefined": "base: all 4 scores are <0>"},
        "accuracy": {"base": 0.5, "fine-tuned": 0.625, "undefined": "too few pairs differ"},
    }
    return found


# A run of 40 steps, evaluated twice.
LOG: list[dict[str, Any]] = [
    {"step": 10, "loss": 2.5, "learning_rate": 2e-5, "in_batch_accuracy": 0.5, "epoch": 0.1},
    {"step": 20, "eval_loss": 2.25, "eval_ndcg@10": 0.625, "eval_runtime": 9.0, "epoch": 0.2},
    {"step": 20, "loss": 1.5, "learning_rate": 1e-5, "in_batch_accuracy": 0.75, "epoch": 0.2},
    {"step": 40, "eval_loss": 1.25, "eval_ndcg@10": 0.875, "eval_runtime": 9.5, "epoch": 0.4},
    {"step": 40, "train_runtime": 60.0, "train_loss": 2.0, "epoch": 0.4},
]

# The figures of all that is in it.
RUN_FIGURES = ["loss", "learning_rate", "in_batch_accuracy", "evaluation_metrics"]
