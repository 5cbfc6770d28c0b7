"""Training by every objective through the real script: it learns, from rows of every format."""

import json
from pathlib import Path
from typing import Any

import pytest

from encoders.kinds import detect_kind
from encoders.kinds import open_model as open_saved
from runs import (
    FORMAT_OF,
    assert_same_weights,
    base_recipe,
    groups,
    losses,
    scored,
    train,
    weights,
    write_format,
)
from trainers import OBJECTIVES, parse_run
from trainers.config.assembly import build_collator, open_model, read_rows

# What is read besides that of ``FORMAT_OF``. Two objectives with the same rows have the same entry.
OTHER_FORMATS = {
    "weighted_mse": ["tsv", "groups", "hits"],
    "cosent": ["tsv", "groups", "hits"],
    "contrastive": ["groups", "scored", "hits"],
    "bce": ["tsv", "groups", "hits"],
    "mse": ["tsv", "groups", "hits"],
    "pairwise": ["scored", "tsv", "hits"],
    "listwise": ["scored", "tsv", "hits"],
    "distillation": ["scored", "hits"],
}
LABELS = {"3": 1.0, "1": 0.25, "0": 0.0}  # of the tsv


def test_every_objective_is_tried() -> None:
    assert FORMAT_OF.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_falls(objective: str, models: dict[str, Path], tmp_path: Path) -> None:
    file = write_format(FORMAT_OF[objective], tmp_path)
    # What is not compared with others of its query is learned slowly.
    slow = objective in ("bce", "mse", "margin_mse")
    steps, learning_rate = (100, 3e-3) if slow else (40, 5e-3)
    output = train(
        tmp_path / "run",
        **base_recipe(objective, models, dropout=False),
        train_file=file,
        eval_file=file,
        train_group_size=4,
        per_device_train_batch_size=8,
        learning_rate=learning_rate,
        max_steps=steps,
    )
    logged = losses(output)
    assert len(logged) == steps
    assert sum(logged[-12:]) < 0.9 * sum(logged[:12])
    assert len(losses(output, "eval_loss")) == 1
    assert detect_kind(output) == OBJECTIVES[objective].model
    assert open_saved(output).score_pairs(["今天"], ["天气"]).shape == (1,)


Judged = set[tuple[str, str, float]]


def written(kind: str) -> Judged:
    """Query, document and relevance of what ``write_format`` writes."""
    if kind in ("scored", "tsv"):
        return {(row["query"], row["doc"], row["rel"]) for row in scored()}
    negatives = {"pairs": 0, "hits": 5}.get(kind)
    return {
        (group["query"], text, relevance)
        for group in groups()
        for texts, relevance in ((group["pos"], 1.0), (group["neg"][:negatives], 0.0))
        for text in texts
    }


def judged(row: dict[str, Any]) -> Judged:
    """The same of a row in the shape that an objective takes."""
    if "doc" in row:
        return {(row["query"], row["doc"], row["rel"])}
    if "pos_doc" in row:
        texts, relevances = [row["pos_doc"], *row["negatives"]], [1.0] + [0.0] * 99
    else:
        texts = [*row["pos"], *row["neg"]]
        relevances = [1.0] * len(row["pos"]) + [0.0] * len(row["neg"])
        if row["graded"]:
            relevances = [*row["pos_scores"], *row["neg_scores"]]
    return {(row["query"], *pair) for pair in zip(texts, relevances, strict=False)}


@pytest.mark.parametrize(
    ("objective", "kind"), [(name, kind) for name, kinds in OTHER_FORMATS.items() for kind in kinds]
)
def test_every_format_gives_the_batches_of_the_native_one(
    objective: str, kind: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """So what it trains is what the test above trains; tests/loaders/shapes proves the rest."""
    batches = []
    for name in (FORMAT_OF[objective], kind):
        recipe = {
            **base_recipe(objective, models),
            "train_file": [str(write_format(name, tmp_path))],
            "label_map": LABELS if name == "tsv" else None,
            "output_dir": str(tmp_path / "run"),
            "train_group_size": 4,
        }
        file = tmp_path / "recipe.json"
        file.write_text(json.dumps(recipe, default=str), encoding="utf-8")
        run = parse_run(["--config", str(file)])
        rows = read_rows(run, run.args.train_file, "rejected_rows.jsonl")
        found = set().union(*(judged(rows[at]) for at in range(len(rows))))
        expected = written(name)
        if objective == "contrastive":  # knows relevant and not relevant alone
            expected = {(query, text, float(grade >= 0.5)) for query, text, grade in expected}
        assert found == expected
        collate = build_collator(run, open_model(run))
        batches.append(collate([{**rows[at], "row": at, "epoch": 0} for at in range(6)]))
    native, other = (
        {key: getattr(value, "dtype", type(value)) for key, value in batch.items()}
        for batch in batches
    )
    assert native == other


@pytest.mark.parametrize(
    "objective", ["weighted_mse", "bce", "mse", "pairwise", "listwise", "multi_vector_distillation"]
)
def test_accumulated_batches_equal_one_batch(
    objective: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """8 + 8 + 8 + 5 rows make the step of 29, weights included; four of 8 are an easier case."""
    file = write_format(FORMAT_OF[objective], tmp_path)
    lines = (file.read_text(encoding="utf-8") * 4).splitlines()[:29]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        **base_recipe(objective, models, dropout=False),
        "train_file": file,
        "train_group_size": 3,
        "num_train_epochs": 2,
        "optim": "sgd",
        "learning_rate": 0.5,
        "max_grad_norm": 0.0,
    }
    one = train(tmp_path / "one", **settings, per_device_train_batch_size=32)
    four = train(
        tmp_path / "four",
        **settings,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=4,
    )
    assert losses(four) == pytest.approx(losses(one), abs=1e-6)
    assert_same_weights(one, four, tolerance=5e-6)
    start = weights(settings["model_name_or_path"])
    moved = [name for name, value in weights(one).items() if not value.equal(start[name])]
    assert moved


@pytest.mark.parametrize(
    "objective",
    ["contrastive", "weighted_mse", "listwise", "distillation", "multi_vector_contrastive"],
)
def test_a_run_without_padding_is_the_run_with_it(
    objective: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """Dropout off: the same loss at every step, and the same weights in the end.

    Once for each trainer's way from batch to loss: what is padded is decided below the loss
    (tests/encoders/unpadding).
    """
    settings = {
        **base_recipe(objective, models, dropout=False),
        "train_file": write_format(FORMAT_OF[objective], tmp_path),
        "train_group_size": 3,
        "max_steps": 10,
        "optim": "sgd",
        "learning_rate": 0.3,
    }
    with_it = train(tmp_path / "padded", **settings, unpad_inputs=False)
    without = train(tmp_path / "unpadded", **settings)
    assert len(losses(without)) == 10
    assert losses(without) == pytest.approx(losses(with_it), abs=1e-5, rel=1e-6)
    assert_same_weights(with_it, without, tolerance=1e-5)
