"""Hostile recipes: values, or one line that says what is wrong, soon.

``benchmarks/fuzzing/fuzz.py`` goes on for as long as it is let.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.flags import check_names, merge
from common.recipe import read_recipe
from trainers import TandemArguments, parse_run

NEEDED: dict[str, Any] = {
    "objective": "contrastive",
    "model_name_or_path": "a/b",
    "train_file": "rows.jsonl",
    "output_dir": "out",
}
YAML = "\n".join(f"{name}: {value}" for name, value in NEEDED.items()) + "\nlabel_map: {3: 1}\n"
PIECES = st.sampled_from(
    ["\0", "\ufeff", "\r", "\u202e", "\ud800", "&a ", "*a ", "<<: ", "!!int ", "!!timestamp ",
    "!!python/object/apply:os.system ", "!!set ", "!!binary ", "? ", "[" * 3000, "---\n", ": ",
    "1e999", "NaN", "9" * 5000, "{", "]", "|", "\t", "!!omap ", "%YAML 9\n", "- "]
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 160), st.integers(0, 20), PIECES), max_size=4)


@settings(max_examples=200, derandomize=True, suppress_health_check=list(HealthCheck))
@given(ending=st.sampled_from([".json", ".yaml"]), changes=CHANGES)
def test_a_changed_recipe_is_values_or_one_line(
    tmp_path: Path, ending: str, changes: list[tuple[int, int, str]]
) -> None:
    text = json.dumps(NEEDED) if ending == ".json" else YAML
    for at, length, piece in changes:
        text = text[:at] + piece + text[at + length :]
    file = tmp_path / f"recipe{ending}"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        merge(TandemArguments, read_recipe(file), {})
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
        assert len(str(error)) < 2000


def refusal(folder: Path, ending: str, text: str) -> str:
    file = folder / f"recipe{ending}"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        parse_run(["--config", str(file)])
    return str(error.value)


BOMB = "label_map:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("ending", "text", "expected"),
    [
        (".json", '{"label_map": ' + "[" * 100_000, "not a recipe: lists or objects nested too"),
        (".yaml", "label_map: " + "[" * 100_000, "recipe.yaml:1: not YAML: brackets nested more"),
        (".json", '{"label_map": ' + "[" * 99 + "]" * 99 + "}", "nested more than 50 deep"),
        (".yaml", BOMB, "not a recipe: more than 100000 values"),
        (".yaml", "label_map: &a {a: *a}", "nested more than 50 deep"),
        (".yaml", "? [a, b]\n: 1", "recipe.yaml:1: not YAML: a name must be a text"),
        (".yaml", "seed: !!int x", "recipe.yaml: not YAML: invalid literal for int()"),
        (".yaml", "seed: !!timestamp x", "recipe.yaml: not YAML:"),
        (".yaml", "seed: !!python/object/apply:os.getpid []", "could not determine a constructor"),
        (".json", json.dumps(NEEDED | {"accelerator_config": {"a": 1}}), "takes only non_bl"),
        (".json", json.dumps(NEEDED | {"accelerator_config": "/nowhere"}), "takes only non_bl"),
    ],
    ids=lambda value: value[:20],
)  # fmt: skip
def test_hostile_recipes(tmp_path: Path, ending: str, text: str, expected: str) -> None:
    line = refusal(tmp_path, ending, text)
    assert expected in line and "\n" not in line


def test_messages_stay_short(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^x{200}\.\.\.: unknown key") as error:
        check_names(["x" * 10_000_000], TandemArguments)
    assert len(str(error.value)) < 300
    line = refusal(tmp_path, ".json", json.dumps(NEEDED | {"seed": "长" * 1_000_000}))
    assert line.startswith('seed: "长长') and len(line) < 300


def test_names_that_stand_twice_are_found_in_one_pass(tmp_path: Path) -> None:
    """Among a hundred thousand, to count each anew took minutes."""
    names = ", ".join(f'"{n}": 0' for n in range(100_000))
    line = refusal(tmp_path, ".json", f'{{{names}, "99999": 1}}')
    assert line.endswith("recipe.json: 99999: duplicate key in the recipe; keep one")
