"""Recipes in YAML and odd values: what they mean, and what is refused in one line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from common.recipe import read_recipe
from trainers import parse_run

NEEDED = {
    "objective": "weighted_mse",
    "model_name_or_path": "a/b",
    "train_file": "rows.jsonl",
    "output_dir": "out",
}


def written(folder: Path, name: str, text: str) -> list[str]:
    (folder / name).write_text(text, encoding="utf-8")
    return ["--config", str(folder / name)]


def yaml_recipe(folder: Path, text: str) -> list[str]:
    lines = [f"{name}: {value}" for name, value in NEEDED.items()]
    return written(folder, "recipe.yaml", "\n".join([*lines, text]) + "\n")


def test_yaml_words_and_keys_mean_what_they_look_like(tmp_path: Path) -> None:
    """YAML 1.1 would read false, 0.75 for key 3, a date, 10 and 90 where these stand."""
    argv = yaml_recipe(
        tmp_path,
        "eval_strategy: no\nlabel_map: {3: 1, 0: 0.25, yes: 1}\nrun_name: 2024-01-01\n"
        "query_prompt: 012\ndocument_prompt: 1:30\nbf16: false\nlearning_rate: 2e-5\n"
        "max_steps: -1\nseed: 7\nweight_decay: .5\neval_file: null\nlogging_steps: 0.25",
    )
    args = parse_run(argv).args
    assert args.eval_strategy == "no"
    assert args.label_map == {"3": 1, "0": 0.25, "yes": 1}
    assert (args.run_name, args.query_prompt, args.document_prompt) == ("2024-01-01", "012", "1:30")
    assert (args.learning_rate, args.max_steps, args.seed) == (2e-5, -1, 7)
    assert (args.weight_decay, args.eval_file, args.logging_steps) == (0.5, None, 0.25)
    assert args.bf16 is False


def test_yaml_anchors_and_merges(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nmine:\n  <<: *base\n  b: 3\n"
    argv = written(tmp_path, "recipe.yml", text)
    assert read_recipe(Path(argv[1])) == {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2", "recipe.yaml:1: not YAML: seed occurs twice"),
        (
            "loss_args:\n\ttemperature: 0.1",
            r"recipe.yaml:6: not YAML: found character '\t' that cannot start any token; indent "
            "with spaces",
        ),
        ("seed 1", "recipe.yaml:5: not YAML: could not find expected ':'"),
        ("label_map: {3: 1", "recipe.yaml:5: not YAML: expected"),
        ("bf16: yes", 'bf16: "yes" is not true or false'),
        ("learning_rate: .nan", 'learning_rate: ".nan" is not a number'),
        ("seed: 012", 'seed: "012" is not an integer'),
    ],
)
def test_yaml_that_cannot_be(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        parse_run(yaml_recipe(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_recipe_of_another_format(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"recipe.toml is not a recipe; give a .json, .yaml or .yml"
    ):
        parse_run(written(tmp_path, "recipe.toml", 'objective = "bce"'))


def test_a_repeated_key_names_the_file(tmp_path: Path) -> None:
    argv = written(tmp_path, "recipe.json", '{"seed": 1, "seed": 2}')
    with pytest.raises(ValueError) as error:
        parse_run(argv)
    assert str(error.value) == f"{argv[1]}: seed: duplicate key in the recipe; keep one"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    "template",
    ['"learning_rate": %s', '"loss_args": {"temperature": %s}', '"label_range": [0, %s]'],
)
def test_numbers_that_are_none(tmp_path: Path, template: str, value: str) -> None:
    text = json.dumps(NEEDED)[:-1] + ", " + template % value + "}"
    with pytest.raises(ValueError, match="is not a finite number"):
        parse_run(written(tmp_path, "recipe.json", text))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--learning_rate", "nan"], "learning_rate: nan is not a finite number"),
        (["--loss_args", '{"temperature": NaN}'], "loss_args: nan is not a finite number"),
        (["--bf16", "maybe"], '--bf16: "maybe" is not true or false'),
        (["--seed", "1", "--seed=2"], "--seed: is given twice; keep one"),
        (
            ["-learning_rate", "1e-5"],
            "-learning_rate: a flag begins with two dashes, --learning_rate",
        ),
        (["--matryoshka_dims", "32", "x"], '--matryoshka_dims: "x" is not an integer'),
        (["--label_range", "0", "inf"], "label_range: inf is not a finite number"),
        (["--eval_corpus", ""], "eval_corpus: is an empty text; give a value, or leave it out"),
        (["--eval_file", "x", ""], "eval_file: is an empty text"),
        (["--eval_file", '["x", ""]'], "eval_file: is an empty text"),
    ],
)
def test_flags_that_cannot_be(argv: list[str], expected: str) -> None:
    given: list[Any] = [f"--{name}={value}" for name, value in NEEDED.items()]
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse_run([*given, "--seed", "1", *argv])


def test_negative_numbers_are_no_flags() -> None:
    given = [f"--{name}={value}" for name, value in NEEDED.items()]
    assert parse_run([*given, "--max_steps", "-1", "--query_prompt=-x"]).args.query_prompt == "-x"
    assert parse_run([*given, "--query_prompt", ""]).args.query_prompt == ""


def test_the_words_of_a_list_are_of_its_type() -> None:
    given = [f"--{name}={value}" for name, value in NEEDED.items()]
    dims = ["--matryoshka_dims", "32", "16", "--matryoshka_weights", "1", "0.5"]
    others = ["--label_range", "0", "5", "--lora_r", "4", "--lora_target_modules", "query", "key"]
    args = parse_run([*given, *dims, *others]).args
    assert (args.matryoshka_dims, args.matryoshka_weights) == ([32, 16], [1, 0.5])
    assert (args.label_range, args.lora_target_modules) == ([0, 5], ["query", "key"])
