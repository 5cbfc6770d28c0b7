"""Metrics during training: what is measured, what it decides, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from encoders import Embedder, Reranker
from evaluation.data.from_rows import retrieval_from_groups
from evaluation.measure import measure_ranking
from evaluation.search.distributed import InferenceSettings
from loaders import ReadOptions, load_rows
from runs import TEXTS, assert_same_weights, losses, refused, train, write_format

STEPS: dict[str, Any] = {
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "max_steps": 6,
}


@pytest.fixture
def embedder(models: dict[str, Path]) -> Path:
    return models["embedder"]


@pytest.fixture
def reranker(models: dict[str, Path]) -> Path:
    return models["reranker"]


def test_an_embedder_is_measured_on_search(embedder: Path, tmp_path: Path) -> None:
    """The last figures logged are those of the model saved; a corpus makes it harder."""
    file = write_format("pairs", tmp_path)
    corpus = tmp_path / "corpus.jsonl"
    more = [{"_id": f"m{n}", "text": f"{text} 附加"} for n, text in enumerate(TEXTS)]
    corpus.write_text("\n".join(json.dumps(row) for row in more), encoding="utf-8")
    metrics = ["ndcg@5", "hit_rate@1"]
    common = {
        "objective": "contrastive",
        "model_name_or_path": embedder,
        "train_file": file,
        "eval_file": file,
        "eval_metrics": metrics,
        **STEPS,
    }
    plain = train(tmp_path / "plain", **common)
    harder = train(tmp_path / "harder", **common, eval_corpus=str(corpus))
    groups = load_rows([str(file)], "candidate_group", ReadOptions())
    data = retrieval_from_groups(groups, None, 0.5)
    found = measure_ranking(
        Embedder.from_pretrained(plain), data, metrics, InferenceSettings()
    ).means()
    for name in metrics:
        logged = losses(plain, f"eval_{name}")
        assert len(logged) == 3
        assert logged[-1] == pytest.approx(found[name], abs=1e-9)
    pairs = list(zip(losses(harder, "eval_ndcg@5"), losses(plain, "eval_ndcg@5"), strict=True))
    assert all(hard <= easy for hard, easy in pairs) and any(hard < easy for hard, easy in pairs)
    assert_same_weights(plain, harder)  # measuring leaves training as it is


def test_measuring_leaves_training_as_it_is(reranker: Path, tmp_path: Path) -> None:
    file = write_format("groups", tmp_path)
    common = {"objective": "listwise", "model_name_or_path": reranker, "train_file": file}
    measured = train(tmp_path / "measured", **common, eval_file=file, **STEPS)
    alone = train(tmp_path / "alone", **common, max_steps=6)
    assert_same_weights(measured, alone)
    data = retrieval_from_groups(
        load_rows([str(file)], "candidate_group", ReadOptions()), candidates=True
    )
    found = measure_ranking(
        Reranker.from_pretrained(measured), data, ["mrr@10"], InferenceSettings()
    ).means()
    assert losses(measured, "eval_mrr@10")[-1] == pytest.approx(found["mrr@10"], abs=1e-9)


@pytest.mark.parametrize("objective", ["weighted_mse", "mse"])
def test_scored_pairs_are_correlated(
    objective: str, embedder: Path, reranker: Path, tmp_path: Path
) -> None:
    file = write_format("scored", tmp_path)
    model = embedder if objective == "weighted_mse" else reranker
    output = train(
        tmp_path / "run",
        objective=objective,
        model_name_or_path=model,
        train_file=file,
        eval_file=file,
        **{**STEPS, "max_steps": 12},
        per_device_train_batch_size=12,
    )
    logged = losses(output, "eval_spearman")
    assert len(logged) == 6
    assert -1 <= logged[0] < max(logged) <= 1


def of_pairs(embedder: Path, folder: Path) -> dict[str, Any]:
    """Trained and evaluated on the same pairs."""
    file = write_format("pairs", folder)
    given = {"model_name_or_path": embedder, "train_file": file, "eval_file": file}
    return {"objective": "contrastive", **given}


def test_a_metric_chooses_the_best_model_and_ends_the_run(embedder: Path, tmp_path: Path) -> None:
    output = train(
        tmp_path / "run",
        **of_pairs(embedder, tmp_path),
        **{**STEPS, "max_steps": 40},
        learning_rate=0.3,  # so high that it only gets worse
        load_best_model_at_end=True,
        metric_for_best_model="eval_ndcg@10",
        early_stopping_patience=2,
    )
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    logged = losses(output, "eval_ndcg@10")
    assert state["best_metric"] == max(logged)
    assert_same_weights(output, Path(state["best_model_checkpoint"]))
    assert len(logged) == logged.index(max(logged)) + 3
    assert state["global_step"] < 40


def test_the_best_model_is_saved_when_it_is_found(embedder: Path, tmp_path: Path) -> None:
    """Also between two save_steps; the card tells of it, and not of the base, which was better."""
    output = train(
        tmp_path / "run",
        **of_pairs(embedder, tmp_path),
        eval_on_start=True,
        **{**STEPS, "eval_steps": 1},
        learning_rate=1e-2,
        warmup_steps=0,
        save_total_limit=1,
        load_best_model_at_end=True,
        greater_is_better=True,  # so that the first step is best
    )
    base, best, *others = losses(output, "eval_loss")
    assert base > best > max(others)
    assert sorted(path.name for path in output.glob("checkpoint-*")) == [
        "checkpoint-1",
        "checkpoint-6",
    ]
    assert_same_weights(output, output / "checkpoint-1")
    assert f"| `eval_loss (step 1)` | `{best:.4g}` |" in (output / "README.md").read_text("utf-8")


def test_where_the_best_model_cannot_be_loaded_the_run_fails(
    embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainers.base import BaseTrainer

    file = write_format("pairs", tmp_path)
    load = BaseTrainer._load_best_model

    def lose_it_first(self: BaseTrainer) -> None:
        shutil.rmtree(str(self.state.best_model_checkpoint))
        load(self)

    monkeypatch.setattr(BaseTrainer, "_load_best_model", lose_it_first)
    with pytest.raises((ValueError, OSError)):
        train(
            tmp_path / "run",
            objective="contrastive",
            model_name_or_path=embedder,
            train_file=file,
            eval_file=file,
            **STEPS,
            load_best_model_at_end=True,
        )
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metric_for_best_model": "eval_ndgc@10"},
            "metric_for_best_model: 'eval_ndgc@10' is not measured in this run; give one of "
            "eval_loss, eval_in_batch_accuracy, eval_ndcg@10",
        ),
        ({"eval_metrics": ["ndgc@10"]}, "ndcg@10"),
        ({"early_stopping_patience": 0}, "early_stopping_patience: must be at least 1"),
        ({"early_stopping_patience": 2}, "needs load_best_model_at_end true"),
        ({"eval_file": None, "eval_strategy": "no", "eval_metrics": ["mrr@10"]}, "an eval_file"),
        ({"eval_corpus": "nowhere.jsonl"}, "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    changes: dict[str, Any],
    message: str,
    embedder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_format("pairs", tmp_path)
    recipe = {
        "objective": "contrastive",
        "model_name_or_path": embedder,
        "train_file": file,
        "eval_file": file,
        **STEPS,
    }
    assert message in refused(capsys, tmp_path / "run", **(recipe | changes))


def test_a_reranker_is_not_measured_on_rows_without_negatives(
    reranker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "objective": "mse",
        "model_name_or_path": reranker,
        "train_file": write_format("groups", tmp_path),
        "eval_file": write_format("pairs", tmp_path),
        **STEPS,
    }
    error = refused(capsys, tmp_path / "run", **recipe)
    assert "no query has both relevant and irrelevant ones; give negatives" in error
