"""Training as a user starts it: ``accelerate launch``, processes, the Hub, one-line errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, constants

from encoders import Embedder
from hub import stand_in_hub
from launching import LAUNCH, finish, start
from runs import losses, refused, train, write_format


def settings(objective: str, model: Path, kind: str, folder: Path) -> dict[str, Any]:
    return {
        "objective": objective,
        "model_name_or_path": str(model),
        "train_file": str(write_format(kind, folder)),
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": 4,
        "max_steps": 3,
        "save_strategy": "no",
        "logging_steps": 1,
    }


def run(
    recipe: dict[str, Any], folder: Path, starter: list[str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the user's command."""
    file = folder / "recipe.json"
    file.write_text(json.dumps(recipe), encoding="utf-8")
    return finish(start([*starter, "scripts/train.py", "--config", str(file)], **environment))


def test_the_users_command(tiny_bert: Path, tmp_path: Path) -> None:
    recipe = settings("contrastive", tiny_bert, "pairs", tmp_path)
    config = "configs/accelerate/one_process.yaml"
    done = run(recipe, tmp_path, [*LAUNCH, "--config_file", config])
    assert done.returncode == 0, done.stderr
    assert "the model is in" in done.stdout
    assert len(losses(tmp_path / "run")) == 3
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["epoch"] == 1  # 3 steps of one process: 4 of 12 rows each
    assert "Traceback" not in done.stderr


def test_pushing_to_the_hub(tiny_bert: Path, tmp_path: Path) -> None:
    recipe = settings("contrastive", tiny_bert, "pairs", tmp_path)
    recipe |= {"push_to_hub": True, "hub_model_id": "a-team/a-model", "hub_private_repo": True}
    with stand_in_hub() as hub:
        done = run(
            recipe,
            tmp_path,
            [sys.executable],
            HF_HUB_OFFLINE="0",
            HF_ENDPOINT=hub.url,
            HF_TOKEN="hf_secret",
            HF_HUB_DISABLE_XET="1",
        )
    assert done.returncode == 0, done.stderr
    assert hub.repos["a-team/a-model"]["visibility"] == "private"
    assert "Bearer hf_secret" in hub.tokens
    names = {path for repo, path in hub.files if repo == "a-team/a-model"}
    assert {"model.safetensors", "modules.json", "1_Pooling/config.json", "README.md"} <= names
    assert {"config.json", "tokenizer.json", "train_config.json"} <= names
    private = ("checkpoint", "finetune.log", "runs", "rejected")
    assert not any(name.startswith(private) or name.endswith(".bin") for name in names)
    card = hub.files["a-team/a-model", "README.md"].decode()
    assert card.startswith("---\nlibrary_name: sentence-transformers")
    assert 'SentenceTransformer("a-team/a-model")' in card
    assert not any(b"hf_secret" in content for content in hub.files.values())
    # What was uploaded is the whole model.
    for (_, path), content in hub.files.items():
        (tmp_path / "fetched" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fetched" / path).write_bytes(content)
    fetched = Embedder.from_pretrained(tmp_path / "fetched")
    saved = Embedder.from_pretrained(tmp_path / "run")
    assert torch.equal(fetched.encode(["a cat"]), saved.encode(["a cat"]))


def test_a_name_that_the_hub_gives_is_that_of_the_card(tiny_bert: Path, tmp_path: Path) -> None:
    recipe = settings("contrastive", tiny_bert, "pairs", tmp_path) | {"push_to_hub": True}
    with stand_in_hub() as hub:
        about = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_secret"}
        done = run(recipe, tmp_path, [sys.executable], HF_HUB_DISABLE_XET="1", **about)
        assert done.returncode == 0, done.stderr
        card = hub.files["someone/run", "README.md"].decode()
        assert 'SentenceTransformer("someone/run")' in card
        assert str(tmp_path / "run") not in card


def test_a_hub_that_refuses_costs_no_model(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A name that cannot be is refused at once; after the run, the model is here."""
    recipe = settings("contrastive", tiny_bert, "pairs", tmp_path)
    del recipe["output_dir"]
    recipe |= {"push_to_hub": True, "hub_token": "hf_writer"}
    with stand_in_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        named = recipe | {"hub_model_id": "me/my model"}
        line = refused(capsys, tmp_path / "run", **named)
        assert "error: push_to_hub: me/my model cannot be created on the Hub (" in line
        line = refused(capsys, tmp_path / "检索模型", **recipe)
        assert "error: push_to_hub: 检索模型 cannot be created on the Hub (" in line
        assert not list(tmp_path.glob("*/*.safetensors"))

        def gone(*_: Any, **__: Any) -> None:
            raise OSError("connection reset\nby peer")

        monkeypatch.setattr(HfApi, "upload_folder", gone)
        line = refused(capsys, tmp_path / "other", **recipe)
    assert f"error: push_to_hub: the model is in {tmp_path / 'other'}, but could not be" in line
    assert "(connection reset by peer); upload its files" in line
    assert (tmp_path / "other" / "model.safetensors").is_file()


# One clear line


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ({"learning_rat": 1e-5}, "learning_rat: unknown key; did you mean learning_rate?"),
        ({"epochs": "three"}, "epochs: unknown key; did you mean num_train_epochs?"),
        ({"num_train_epochs": "three"}, 'num_train_epochs: "three" is not a number'),
        ({"bf16": "no"}, 'bf16: "no" is not true or false'),
        ({"max_steps": 1.5}, "max_steps: 1.5 is not an integer"),
        ({"objective": "bse"}, "objective: 'bse' is not one of weighted_mse, cosent, contrastive"),
        ({"objective": None}, "objective: null is not text"),
        ({"data_seed": -1}, "data_seed: must be at least 0, got -1"),
        ({"data_seed": 2**62}, "data_seed: must be at most 4294967295, got 4611"),
        ({"seed": 2**32}, "seed: must be at most 4294967295, got 4294967296"),
        ({"train_file": []}, "train_file: is missing"),
        ({"loss_args": {"temp": 1}}, "loss_args: temp: contrastive takes temperature, symmetric"),
        (
            {"loss_args": {"temperature": 0}},
            "loss_args: temperature must be above 0, from 1e-06 to 1e+06, got 0",
        ),
        ({"max_length": 12}, "max_length: is for the reranker"),
        ({"query_max_length": 0}, "query_max_length: must be at least 1"),
        ({"query_max_length": 999, "document_max_length": 9}, "takes at most 128"),
        ({"label_range": [5, 0]}, "label_range: must be [lowest, highest], got [5"),
        ({"eval_strategy": "epochs"}, 'eval_strategy: "epochs" is not one of no, steps, epoch'),
        ({"pooling": "sum"}, 'pooling: "sum" is not one of cls, mean, last'),
        ({"train_file": "nowhere/rows.jsonl"}, "nowhere/rows.jsonl"),
        ({"model_name_or_path": "/nowhere"}, "error: /nowhere is neither a folder here nor"),
        ({"resume_from_checkpoint": True}, "resume_from_checkpoint: no checkpoint-N folder"),
        ({"resume_from_checkpoint": "/nowhere"}, "there is no folder /nowhere"),
        ({"eval_strategy": "epoch"}, "eval_file: is missing, but eval_strategy is epoch"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end: needs one eval_strategy and"),
        ({"label_map": {}}, "label_map: is empty"),
        ({"fsdp": "full_shard"}, "fsdp: is set at launch"),
        ({"max_label": 3}, "max_label: unknown key; did you mean label_range"),
        ({"hub_strategy": "every_save"}, 'hub_strategy: is always "end" here'),
        ({"query_max_length": 2}, "query_max_length: 2 leaves no room for a text"),
        ({"learning_rate": float("nan")}, "learning_rate: nan is not a finite number"),
        ({"loss_args": {"temperature": float("inf")}}, "loss_args: inf is not a finite number"),
    ],
)
def test_mistakes_in_a_recipe(
    mistake: dict[str, Any],
    expected: str,
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = {
        "objective": "contrastive",
        "model_name_or_path": tiny_bert,
        "train_file": write_format("pairs", tmp_path),
        **mistake,
    }
    line = refused(capsys, tmp_path / "run", **recipe)
    assert expected in line


def test_bad_rows_stop_the_run_and_are_listed(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_format("pairs", tmp_path)
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[3] = '{"query": "", "pos_doc": "今天"}'
    lines[5] = '{"query": "cat"}'
    file.write_text("\n".join(lines), encoding="utf-8")
    recipe = {
        "objective": "contrastive",
        "model_name_or_path": tiny_bert,
        "train_file": file,
        "max_steps": 1,
    }
    with pytest.raises(SystemExit):
        train(tmp_path / "run", **recipe)
    error = capsys.readouterr().err  # a line for each row
    assert f"{file}:4" in error
    assert f"{file}:6" in error
    rejected = (tmp_path / "run" / "rejected_rows.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["line"] for line in rejected.splitlines()] == [4, 6]

    train(tmp_path / "run", **recipe, on_bad_rows="skip")
    log = (tmp_path / "run" / "finetune.log").read_text(encoding="utf-8")
    assert "10 rows (positive pair)" in log


def test_a_folder_that_holds_a_run_is_not_touched(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "objective": "contrastive",
        "model_name_or_path": tiny_bert,
        "train_file": write_format("pairs", tmp_path),
        "max_steps": 1,
    }
    train(tmp_path / "run", **recipe)
    before = (tmp_path / "run" / "finetune.log").read_bytes()
    line = refused(capsys, tmp_path / "run", **recipe)
    assert "already holds a finished run" in line
    assert "--overwrite" in line
    assert (tmp_path / "run" / "finetune.log").read_bytes() == before
    train(tmp_path / "run", **recipe, overwrite=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(SystemExit):
        train(tmp_path / "model", **recipe, overwrite=True)
    assert "already holds a finished model" in capsys.readouterr().err
