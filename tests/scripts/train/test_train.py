"""Training through the real script: every objective, every format, exact resume, accumulation."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from collators import ContrastiveCollator
from encoders import Embedder, Reranker
from runs import TOPICS, assert_same_weights, losses, train, weights, write_format
from tiny import save_backbone, save_classifier
from trainers import OBJECTIVES

FORMATS = {
    "weighted_mse": ["scored", "tsv", "groups", "hits"],
    "cosent": ["scored", "tsv", "groups", "hits"],
    "contrastive": ["pairs", "groups", "scored", "hits"],
    "bce": ["scored", "tsv", "groups", "hits"],
    "mse": ["scored", "tsv", "groups", "hits"],
    "pairwise": ["groups", "scored", "tsv", "hits"],
    "listwise": ["groups", "scored", "tsv", "hits"],
    "distillation": ["taught", "scored", "hits"],
    # The same rows in the same batches:
    "margin_mse": ["taught"],
    "reranker_distillation": ["taught"],
    "reranker_margin_mse": ["taught"],
}
NATIVE = {objective: formats[0] for objective, formats in FORMATS.items()}
TEXTS = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models that know the topics' words, with and without dropout."""
    folder = tmp_path_factory.mktemp("models")
    none: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return {
        "embedder": save_backbone(folder / "embedder", TEXTS),
        "reranker": save_classifier(folder / "reranker", TEXTS),
        "embedder without dropout": save_backbone(folder / "embedder0", TEXTS, **none),
        "reranker without dropout": save_classifier(folder / "reranker0", TEXTS, **none),
    }


def recipe(objective: str, models: dict[str, Path], dropout: bool = True) -> dict[str, Any]:
    kind = OBJECTIVES[objective].model
    name = kind if dropout else f"{kind} without dropout"
    settings: dict[str, Any] = {"objective": objective, "model_name_or_path": models[name]}
    if kind == "embedder":
        return {**settings, "query_max_length": 16, "document_max_length": 32}
    return {**settings, "max_length": 48}


def test_every_objective_is_tried() -> None:
    assert FORMATS.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize(
    ("objective", "kind"), [(name, kind) for name, kinds in FORMATS.items() for kind in kinds]
)
def test_the_loss_falls(objective: str, kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    label_map = {"3": 1.0, "1": 0.25, "0": 0.0} if kind == "tsv" else None
    output = train(
        tmp_path / "run",
        **recipe(objective, models, dropout=False),
        train_file=write_format(kind, tmp_path),
        eval_file=write_format(kind, tmp_path),
        label_map=label_map,
        train_group_size=4,
        per_device_train_batch_size=8,
        learning_rate=3e-3,
        max_steps=100,
    )
    logged = losses(output)
    assert len(logged) == 100
    assert sum(logged[-12:]) < 0.9 * sum(logged[:12])
    assert len(losses(output, "eval_loss")) == 1
    if OBJECTIVES[objective].model == "embedder":
        assert Embedder.from_pretrained(output).encode(["今天"]).shape == (1, 32)
    else:
        assert Reranker.from_pretrained(output).score([("今天", "天气")]).shape == (1,)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_resumed_run_ends_bit_identical(
    objective: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """Dropout, shuffling, sampled negatives, accumulation and a short last batch are on."""
    settings = {
        **recipe(objective, models),
        "train_file": write_format(NATIVE[objective], tmp_path),
        "train_group_size": 3,
        "per_device_train_batch_size": 5,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 3,
        "save_strategy": "steps",
        "save_steps": 1,
        "projection_dim": 8 if OBJECTIVES[objective].model == "embedder" else None,
    }
    whole = train(tmp_path / "whole", **settings)
    checkpoints = sorted(whole.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    last = int(checkpoints[-1].name[11:])
    assert last >= 6
    # In the first epoch, at the end of one, and in the last.
    for step in (1, last // 3, last - 1):
        resumed = train(
            tmp_path / f"from-{step}",
            **settings,
            resume_from_checkpoint=str(whole / f"checkpoint-{step}"),
        )
        assert_same_weights(whole, resumed)
        assert losses(whole)[step:] == losses(resumed)[-(last - step) :]


def test_resume_true_takes_the_last_checkpoint_of_the_folder(
    models: dict[str, Path], tmp_path: Path
) -> None:
    settings = {
        **recipe("contrastive", models),
        "train_file": write_format("pairs", tmp_path),
        "max_steps": 8,
    }
    whole = train(tmp_path / "whole", **settings)
    stopped = tmp_path / "stopped"
    train(stopped, **settings, save_strategy="steps", save_steps=3)
    # As a run that was killed after its second checkpoint leaves it.
    for file in stopped.iterdir():
        if file.is_file() and file.name != "train_config.json":
            file.unlink()
    shutil.rmtree(stopped / "checkpoint-8")
    with pytest.raises(SystemExit):
        train(stopped, **settings)
    train(stopped, **settings, resume_from_checkpoint=True)
    assert_same_weights(whole, stopped)


def test_a_resumed_run_makes_no_batch_of_what_was_done(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Skipped batches are neither read nor tokenized."""
    settings = {
        **recipe("contrastive", models),
        "train_file": write_format("pairs", tmp_path),
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 4,
    }
    whole = train(tmp_path / "whole", **settings)
    made = []
    make = ContrastiveCollator.__call__

    def counted(self: ContrastiveCollator, rows: list[dict[str, Any]]) -> dict[str, Any]:
        made.append(len(rows))
        return make(self, rows)

    monkeypatch.setattr(ContrastiveCollator, "__call__", counted)
    start = str(whole / "checkpoint-4")
    resumed = train(tmp_path / "resumed", **settings, resume_from_checkpoint=start)
    assert len(made) == 2
    assert_same_weights(whole, resumed)


def test_the_epoch_decides_what_is_drawn(models: dict[str, Path], tmp_path: Path) -> None:
    settings = {
        **recipe("listwise", models, dropout=False),
        "train_file": write_format("groups", tmp_path),
        "train_group_size": 2,
        "per_device_train_batch_size": 12,
        "learning_rate": 0.0,
        "num_train_epochs": 3,
    }
    # The model stands still, so that different losses mean different negatives.
    assert len(set(losses(train(tmp_path / "run", **settings)))) == 3


@pytest.mark.parametrize("objective", ["weighted_mse", "bce", "mse", "pairwise", "listwise"])
@pytest.mark.parametrize("rows", [32, 29])
def test_accumulated_batches_equal_one_batch(
    objective: str, rows: int, models: dict[str, Path], tmp_path: Path
) -> None:
    """4 x 8 rows make the step of 32 (and 8 + 8 + 8 + 5 that of 29), weights included."""
    file = write_format(NATIVE[objective], tmp_path)
    lines = (file.read_text(encoding="utf-8") * 4).splitlines()[:rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {
        **recipe(objective, models, dropout=False),
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


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_a_run_without_padding_is_the_run_with_it(
    objective: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """Dropout off: the same loss at every step, and the same weights in the end."""
    settings = {
        **recipe(objective, models, dropout=False),
        "train_file": write_format(NATIVE[objective], tmp_path),
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


def test_the_eval_loss_is_the_mean_over_all_rows(models: dict[str, Path], tmp_path: Path) -> None:
    file = write_format("scored", tmp_path)
    settings = {
        **recipe("weighted_mse", models, dropout=False),
        "train_file": file,
        "eval_file": file,
        "learning_rate": 0.0,
        "max_steps": 1,
    }
    values = [
        losses(train(tmp_path / f"of-{size}", **settings, per_device_eval_batch_size=size),
               "eval_loss")[0]
        for size in (64, 7)
    ]  # fmt: skip
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_what_a_run_shows_and_leaves(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_format("pairs", tmp_path)
    output = train(
        tmp_path / "run",
        **recipe("contrastive", models),
        train_file=file,
        eval_file=file,
        eval_strategy="epoch",
        num_train_epochs=2,
        report_to=["tensorboard"],
        disable_tqdm=False,
        save_strategy="epoch",
    )
    seen = capsys.readouterr()
    log = (output / "finetune.log").read_text(encoding="utf-8").splitlines()
    assert all(line in seen.out for line in log)
    steps = [line for line in log if "in_batch_accuracy" in line and " loss " in line]
    assert len(steps) == 6
    assert "step 6/6" in steps[-1]
    assert any("eval_in_batch_accuracy" in line for line in log)
    assert "loss=" in seen.err
    assert "in_batch_accuracy=" in seen.err
    assert list(output.rglob("events.out.tfevents.*"))
    assert sorted(path.name for path in output.glob("checkpoint-*")) == [
        "checkpoint-3",
        "checkpoint-6",
    ]
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: sentence-similarity" in card
    assert not list(output.rglob("*.bin"))


def test_the_saved_config_is_a_recipe_that_gives_the_same_model(
    models: dict[str, Path], tmp_path: Path
) -> None:
    settings = {**recipe("bce", models), "train_file": write_format("groups", tmp_path)}
    first = train(tmp_path / "first", **settings, max_steps=3)
    saved = json.loads((first / "train_config.json").read_text(encoding="utf-8"))
    assert saved["max_steps"] == 3
    assert saved["weight_decay"] == 0.0
    again = train(tmp_path / "again", **{k: v for k, v in saved.items() if k != "output_dir"})
    assert_same_weights(first, again)


def test_several_dataloader_workers_give_the_same_model(
    models: dict[str, Path], tmp_path: Path
) -> None:
    settings = {
        **recipe("pairwise", models),
        "train_file": write_format("groups", tmp_path),
        "train_group_size": 3,
        "num_train_epochs": 3,
    }
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    alone = train(tmp_path / "alone", **settings)
    whole = train(tmp_path / "whole", **settings, **workers, save_strategy="steps", save_steps=2)
    assert_same_weights(alone, whole)
    start = whole / "checkpoint-4"  # in the second epoch
    resumed = train(tmp_path / "resumed", **settings, **workers, resume_from_checkpoint=str(start))
    assert_same_weights(alone, resumed)


def test_the_best_checkpoint_is_loaded_at_the_end(models: dict[str, Path], tmp_path: Path) -> None:
    file = write_format("pairs", tmp_path)
    output = train(
        tmp_path / "run",
        **recipe("contrastive", models),
        train_file=file,
        eval_file=file,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        max_steps=6,
        learning_rate=0.3,  # so high that the last model is not the best
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    best = Path(state["best_model_checkpoint"])
    assert state["best_metric"] == min(losses(output, "eval_loss"))
    assert_same_weights(output, best)
