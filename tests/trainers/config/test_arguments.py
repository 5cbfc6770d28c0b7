"""Recipes and flags: what is read, what wins, what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from collators.epochs import EpochRows, EpochSampler
from trainers import parse_run
from trainers.config.arguments import defaults

NEEDED = {
    "objective": "contrastive",
    "model_name_or_path": "a/b",
    "train_file": "rows.jsonl",
    "output_dir": "out",
}


def flags(**more: Any) -> list[str]:
    return [f"--{name}={value}" for name, value in {**NEEDED, **more}.items()]


def recipe(folder: Path, **more: Any) -> list[str]:
    file = folder / "recipe.json"
    file.write_text(json.dumps({**NEEDED, **more}), encoding="utf-8")
    return ["--config", str(file)]


def test_flags_win_over_the_recipe(tmp_path: Path) -> None:
    argv = recipe(tmp_path, learning_rate=1e-5, seed=7)
    args = parse_run([*argv, "--learning_rate", "3e-5"]).args
    assert (args.learning_rate, args.seed) == (3e-5, 7)
    assert args.recipe["learning_rate"] == 3e-5
    assert args.recipe["weight_decay"] == 0.0


def test_yaml_and_json_give_the_same(tmp_path: Path) -> None:
    given = {"learning_rate": 5e-5, "loss_args": {"temperature": 0.02}, "train_file": ["a", "b"]}
    text = "\n".join([f"{k}: {v}" for k, v in NEEDED.items() if k != "train_file"])
    text += "\nlearning_rate: 5e-5\nloss_args: {temperature: 2e-2}\ntrain_file: [a, b]\n"
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    from_yaml = parse_run(["--config", str(tmp_path / "recipe.yaml")]).args
    from_json = parse_run(recipe(tmp_path, **given)).args
    assert from_yaml.recipe == from_json.recipe
    assert from_yaml.learning_rate == 5e-5  # YAML 1.1 would have read a text


def test_flags_are_read_as_the_type_of_their_field() -> None:
    argv = [flag for flag in flags() if not flag.startswith("--train_file")]
    argv += ["--train_file", "a.jsonl", "b.jsonl", "--bf16", "false"]
    argv += ["--loss_args", '{"temperature": 0.1}', "--label_range", "[0, 5]"]
    argv += ["--push_to_hub", "--max_steps", "-1", "--eval_file", "null", "--save_steps", "0.25"]
    args = parse_run(argv).args
    assert args.train_file == ["a.jsonl", "b.jsonl"]
    assert (args.bf16, args.push_to_hub, args.max_steps) == (False, True, -1)
    assert args.loss_args == {"temperature": 0.1}
    assert args.label_range == [0.0, 5.0]
    assert args.eval_file is None
    assert args.save_steps == 0.25


def test_the_defaults_are_a_linear_warm_up_and_adamw() -> None:
    args = parse_run(flags()).args
    assert args.warmup_steps == 0.1
    assert args.lr_scheduler_type == "linear"
    assert "adamw" in args.optim
    assert args.report_to == []


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["recipe.json"], "a flag begins with --; a recipe is given as --config recipe.json"),
        (["--config", "nowhere.json"], "--config: there is no file nowhere.json"),
        (["--seed"], "--seed: a value is missing"),
        (["--learning_rate", "fast"], '--learning_rate: "fast" is not a number'),
        (["--loss_args", "{temperature}"], "--loss_args: {temperature} is not JSON"),
        (["--seeed", "1"], "seeed: unknown key; did you mean seed?"),
        (["--see", "1"], "see: unknown key"),  # argparse would have taken an abbreviation
        (["--lr", "1"], "lr: unknown key; did you mean learning_rate?"),
        (["--passage_max_len", "1"], "did you mean document_max_length?"),
        (["--per_device_train_batch_size", "0"], "per_device_train_batch_size: must be at least 1"),
        (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps: must be at least 1"),
        (["--dataloader_num_workers=-1"], "dataloader_num_workers: must be at least 0, got -1"),
        (["--learning_rate=-1e-5"], "learning_rate: must be at least 0, got -1e-05"),
        (["--max_steps", "0"], "max_steps: must be at least 1, got 0"),
        (["--num_train_epochs", "0"], "num_train_epochs: must be above 0, got 0"),
        (["--loss_args", '{"symmetric": "no"}'], 'loss_args: symmetric: "no" is not true or false'),
        (["--loss_args", '{"temperature": "0.05"}'], 'loss_args: temperature: "0.05" is not a num'),
        (
            ["--per_device_train_batch_size", "1", "--train_group_size", "1"],
            "leaves contrastive without any negative",
        ),
        (["--gradient_cache_chunk_size", "0"], "gradient_cache_chunk_size: must be at least 1"),
        (["--report_to", "tensorbord"], "report_to: 'tensorbord' is not one of none, all, "),
        (["--report_to", "wandb"], "report_to: wandb is not installed; pip install"),
    ],
)
def test_flags_that_cannot_be(argv: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse_run([*flags(), *argv] if argv[0].startswith("--") else argv)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"seed": 1,\n "lr" 2}', "recipe.json:2: not JSON: Expecting ':' delimiter"),
        ("[1]", "recipe.json: a recipe is an object of keys and values"),
        ('{"seed": true}', "seed: true is not an integer"),
        ('{"bf16": 1}', "bf16: 1 is not true or false"),
        ('{"label_map": {"1": "high"}}', "label_map: "),
        ('{"train_file": [1]}', "train_file: [1] is not a list or text"),
    ],
)
def test_recipes_that_cannot_be(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "recipe.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        parse_run(["--config", str(tmp_path / "recipe.json")])
    assert "\n" not in str(error.value)


def test_recipes_of_other_encodings(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(NEEDED).encode())
    assert parse_run(["--config", str(file)]).args.objective == "contrastive"
    file.write_bytes(
        json.dumps({**NEEDED, "query_prompt": "检索"}, ensure_ascii=False).encode("gbk")
    )
    with pytest.raises(ValueError, match="not UTF-8"):
        parse_run(["--config", str(file)])


def test_bf16_without_bf16_instructions_is_switched_off_with_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert not parse_run([*flags(), "--bf16"]).args.bf16
    assert any("bf16 is off for this run" in message for message in caplog.messages)


def test_every_default_is_a_value_that_a_recipe_can_hold() -> None:
    assert json.loads(json.dumps(defaults())) == defaults()


# The order of the rows


def test_the_sampler_is_a_function_of_seed_and_epoch() -> None:
    sampler = EpochSampler(10, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(10))
    assert list(sampler) == first
    sampler.epoch = 2
    later = list(sampler)
    assert sorted(later) == list(range(20, 30))
    assert [index - 20 for index in later] != first
    other = EpochSampler(10, seed=4)
    assert list(other) != first


def test_rows_know_their_number_and_epoch() -> None:
    rows = EpochRows([{"query": "a"}, {"query": "b"}, {"query": "c"}])
    assert len(rows) == 3
    assert rows[1] == {"query": "b", "row": 1, "epoch": 0}
    assert rows[3 * 5 + 2] == {"query": "c", "row": 2, "epoch": 5}
