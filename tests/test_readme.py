"""Both READMEs: complete, alike, and every example in them works."""

import json
import re
import shlex
import sys
import types
from itertools import zip_longest
from pathlib import Path

import pytest

import trainers.objectives
from common.flags import FAMILIAR
from loaders import ReadOptions, detect_shape, load_rows
from trainers import OBJECTIVES, parse_arguments
from trainers.config.arguments import OWN_FIELDS, defaults

ROOT = Path(__file__).resolve().parent.parent
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md")}
# A fenced block, and the marker that may stand on the line before it.
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# <!-- rows: file name, its shape, the number of rows, the reading options -->
ROWS = re.compile(r"rows: (\S+) (\w+) (\d+) ?(.*)")
REQUIRED = {"objective", "model_name_or_path", "train_file", "output_dir"}

each_readme = pytest.mark.parametrize("readme", TEXTS)


def blocks(readme: str, language: str) -> list[tuple[str, str]]:
    """(marker or "", content) of the fenced blocks of one language."""
    found = BLOCK.findall(TEXTS[readme])
    return [(marker, content) for marker, kind, content in found if kind == language]


def commands(readme: str) -> list[str]:
    """The shell commands shown, one each, without comments."""
    script = "\n".join(content for _, content in blocks(readme, "bash")).replace("\\\n", " ")
    lines = [shlex.join(shlex.split(line, comments=True)) for line in script.splitlines()]
    return [line for line in lines if line]


def code(readme: str, file: str) -> str:
    """The block that shows ``file``."""
    (content,) = (text for marker, text in blocks(readme, "python") if marker == f"code: {file}")
    return content


# Complete


@each_readme
def test_every_own_key_is_explained_with_its_default(readme: str) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", TEXTS[readme], re.MULTILINE))
    for name, default in defaults().items():
        if name in REQUIRED:
            assert rows[name].isalpha(), name  # "required", in words
        elif name in {field.name for field in OWN_FIELDS} or name in rows:
            assert rows[name] == f"`{json.dumps(default)}`", name


@each_readme
def test_every_objective_recipe_script_and_known_name_is_there(readme: str) -> None:
    text = TEXTS[readme]
    for objective, row in OBJECTIVES.items():
        assert f"\n| `{objective}` | {row.model} |" in text
    for file in (ROOT / "configs").glob("*.json"):
        assert f"\n| `configs/{file.name}` |" in text
    for file in (ROOT / "configs/accelerate").glob("*.yaml"):
        assert f"--config_file configs/accelerate/{file.name} " in text
    scripts = list((ROOT / "scripts").glob("[a-z]*.py"))
    for file in (path for path in scripts if "__main__" in path.read_text("utf-8")):
        assert f"python scripts/{file.name} " in text or f"launch scripts/{file.name} " in text
    for name in FAMILIAR:
        assert f"`--{name}" in text


@each_readme
def test_every_folder_and_file_named_exists(readme: str) -> None:
    text = TEXTS[readme]
    tree = re.findall(r"^(\w+)/ {2,}", text, re.MULTILINE)
    assert set(tree) == {path.parent.name for path in ROOT.glob("*/__init__.py")} | {
        "configs",
        "tests",
    }
    named = re.findall(r"\]\(([\w.-]+)\)", text) + re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    made_in_the_example = {"losses/focal.py", "tests/losses/test_focal.py"}
    for name in set(named) - made_in_the_example:
        assert (ROOT / name).is_file(), name


# Alike


def test_both_have_the_same_headings() -> None:
    fenced = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    english, chinese = (
        re.findall(r"^#+(?= )", fenced.sub("", text), re.MULTILINE) for text in TEXTS.values()
    )
    assert english == chinese


def test_both_have_the_same_commands_examples_and_tables() -> None:
    english, chinese = TEXTS
    assert commands(english) == commands(chinese)
    for language in ("json", "csv", "tsv", "python"):
        assert blocks(english, language) == blocks(chinese, language)
    first_cells = [re.findall(r"^\| `([^`]*)`", text, re.MULTILINE) for text in TEXTS.values()]
    for one, other in zip_longest(*first_cells):
        assert one == other


# Every example works


@each_readme
def test_the_rows_shown_are_read(readme: str, tmp_path: Path) -> None:
    shown = [
        (*match.groups(), content)
        for language in ("json", "csv", "tsv")
        for marker, content in blocks(readme, language)
        if (match := ROWS.fullmatch(marker))
    ]
    assert len(shown) == TEXTS[readme].count("<!-- rows: ")
    for name, shape, count, given, content in shown:
        file = tmp_path / name
        file.write_text(content, encoding="utf-8")
        settings = json.loads(given or "{}")
        if "label_range" in settings:
            settings["label_range"] = tuple(settings["label_range"])
        options = ReadOptions(**settings)
        assert detect_shape(str(file), options) == shape, name
        assert len(load_rows(str(file), detect_shape(str(file), options), options)) == int(count)


@each_readme
def test_the_recipes_and_training_commands_are_valid(
    readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    add_the_example_objective(readme, monkeypatch)
    recipes = [content for marker, content in blocks(readme, "json") if not marker]
    assert recipes
    for recipe in recipes:
        file = tmp_path / "recipe.json"
        file.write_text(recipe, encoding="utf-8")
        parse_arguments(["--config", str(file)])
    for command in commands(readme):
        if "scripts/train.py" in command:
            words = shlex.split(command)
            parse_arguments(words[words.index("scripts/train.py") + 1 :])


@each_readme
def test_the_example_objective_works(readme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add_the_example_objective(readme, monkeypatch)
    names: dict[str, object] = {}
    exec(code(readme, "tests/losses/test_focal.py"), names)
    test = names["test_focal_is_the_naive_loop"]
    assert callable(test)
    test()


def add_the_example_objective(readme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the README says for the duration of a test: a loss file, a row of the table."""
    module = types.ModuleType("losses.focal")
    exec(code(readme, "losses/focal.py"), vars(module))
    monkeypatch.setitem(sys.modules, "losses.focal", module)
    row = code(readme, "trainers/objectives.py")
    added = eval(f"{{{row}}}", vars(trainers.objectives) | {"FocalLoss": module.FocalLoss})
    for name, objective in added.items():
        monkeypatch.setitem(OBJECTIVES, name, objective)
