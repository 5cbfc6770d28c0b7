"""A teacher is compared with its student before it teaches."""

import json
from pathlib import Path
from typing import Any

import pytest

from encoders import Embedder, Reranker
from encoders.backbone import Encoder
from evaluation.search.distributed import InferenceSettings
from runs import TOPICS, losses, refused, train
from trainers.guards.evaluations import EvaluationFailed
from trainers.guards.teacher import check_teacher

GROUPS: list[dict[str, Any]] = [
    {"query": topic, "pos": [own[0]], "neg": [other[-1], other[0]], "prompt": None}
    for (topic, own), other in zip(
        TOPICS.items(), [*list(TOPICS.values())[1:], next(iter(TOPICS.values()))], strict=True
    )
]


def scored(groups: list[dict[str, Any]], positive: list[float]) -> list[dict[str, Any]]:
    """Each positive with a score; the negatives have 0 and -1."""
    return [
        {**row, "pos_scores": [score], "neg_scores": [0.0, -1.0]}
        for row, score in zip(groups, positive, strict=True)
    ]


def by_the_model(model: Encoder) -> list[dict[str, Any]]:
    """The model's own scores."""
    found = []
    for row in GROUPS:
        texts = [*row["pos"], *row["neg"]]
        scores = model.score_pairs([row["query"]] * 3, texts).tolist()
        found.append({**row, "pos_scores": scores[:1], "neg_scores": scores[1:]})
    return found


def test_a_perfect_teacher_teaches_and_one_that_knows_nothing_does_not(
    tiny_bert: Path, tiny_classifier: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    models: list[Encoder] = [
        Embedder.from_pretrained(tiny_bert),
        Reranker.from_pretrained(tiny_classifier),
    ]
    for model in models:
        check_teacher(scored(GROUPS, [1.0] * len(GROUPS)), model, InferenceSettings())
        assert "ndcg@10 of its scores 1.0000" in caplog.text
        with pytest.raises(EvaluationFailed, match=r"no better than the model does: ndcg@10 of"):
            check_teacher(scored(GROUPS, [-2.0] * len(GROUPS)), model, InferenceSettings())


def test_the_model_itself_is_no_teacher(tiny_bert: Path) -> None:
    """An equal teacher teaches nothing."""
    model = Embedder.from_pretrained(tiny_bert)
    with pytest.raises(EvaluationFailed, match=r"\+0\.0000 \[\+0\.0000, \+0\.0000\]"):
        check_teacher(by_the_model(model), model, InferenceSettings())


def test_groups_without_negatives_tell_nothing(
    tiny_bert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{**row, "neg": [], "neg_scores": []} for row in scored(GROUPS, [0.0] * len(GROUPS))]
    check_teacher(rows, Embedder.from_pretrained(tiny_bert), InferenceSettings())
    assert "too few queries with negatives" in caplog.text


@pytest.mark.parametrize("objective", ["distillation", "reranker_margin_mse"])
def test_a_run_is_refused_unless_it_is_allowed(
    objective: str,
    tiny_bert: Path,
    tiny_classifier: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = scored(GROUPS, [-2.0] * len(GROUPS))
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    settings: dict[str, Any] = {
        "objective": objective,
        "model_name_or_path": tiny_classifier if "reranker" in objective else tiny_bert,
        "train_file": file,
        "eval_file": file,
        "max_steps": 1,
    }
    line = refused(capsys, tmp_path / "run", **settings)
    assert "it has nothing to teach" in line and "allow_weak_teacher" in line
    run = train(tmp_path / "allowed", **settings, allow_weak_teacher=True)
    assert len(losses(run)) == 1
    train(tmp_path / "unmeasured", **settings, eval_metrics=[])
