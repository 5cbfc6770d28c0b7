"""Write docs/reference/ from the code: recipe keys, objectives and script flags.

    python docs/generate.py

A test holds the files equal to what this writes, so run it after changing a dataclass of settings,
the table of objectives or the docstring of a loss.
"""

import dataclasses
import importlib
import inspect
import itertools
import json
import pkgutil
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets.config import HF_DATASETS_CACHE
from transformers import TrainingArguments

from common.flags import Key, keys
from common.typed_values import type_text
from scripts import SETTINGS
from trainers import OBJECTIVES
from trainers.config.arguments import TandemArguments
from trainers.config.fields import RecipeFields

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"

# All but train.py, whose keys have a page of their own.
SCRIPTS: dict[str, Any] = {
    command: pkgutil.resolve_name(place)
    for command, place in SETTINGS.items()
    if command != "train.py"
}


def main() -> None:
    """Write every page, and name those that changed."""
    for name, text in pages().items():
        file = FOLDER / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"wrote {file.relative_to(ROOT)}")


def pages() -> dict[str, str]:
    """Each generated file's name and text."""
    note = "<!-- Written by docs/generate.py; change the code instead. -->"
    return {
        f"{page.__name__}.md": f"{note}\n{page().strip()}\n"
        for page in (recipe_keys, objectives, script_flags)
    }


def recipe_keys() -> str:
    """All keys this project adds to ``TrainingArguments``, and the defaults it changes there."""
    theirs = {field.name for field in dataclasses.fields(TrainingArguments)}
    parts = [
        "# Recipe keys",
        "[中文](../zh/recipe_keys.md)",
        "The keys of `scripts/train.py`, as flags and in a recipe. All keys of Hugging Face's "
        "[`TrainingArguments`](https://huggingface.co/docs/transformers/main_classes/trainer"
        "#transformers.TrainingArguments) work too; [Recipes](../guide/recipes.md) lists the most "
        "used ones.",
    ]
    ours = list(keys(TandemArguments))
    own = [key for key in ours if key.name not in theirs]
    declared = theirs & RecipeFields.__annotations__.keys()
    changed = [key for key in ours if key.name in declared]
    parts += [f"## {heading}\n\n{text}" for heading, text in grouped(own)]
    parts += ["## Keys of TrainingArguments with another default", table(changed)]
    return "\n\n".join(parts)


def objectives() -> str:
    """A section per objective: what it takes, its loss, the arguments of the loss."""
    parts = [
        "# Objectives",
        "One section per row of `trainers/objectives.py`. Which one to choose: "
        "[Objectives](../guide/objectives.md).",
    ]
    for name, row in OBJECTIVES.items():
        rows = " or ".join(f"`{shape}`" for shape in row.shapes)
        extras = {"negatives": row.needs_negatives, "teacher scores": row.needs_scores}
        if any(extras.values()):
            rows += f", with {' and '.join(what for what, needed in extras.items() if needed)}"
        parts += [
            f"## `{name}`",
            f"- model: {row.model}\n- rows: {rows}\n- loss: {where(row.loss)}\n"
            f"- collator: {where(row.collator)}\n- trainer: {where(row.trainer)}",
            prose(row.loss),
            loss_arguments(row.loss),
        ]
    return "\n\n".join(part for part in parts if part)


def loss_arguments(loss: type) -> str:
    """The table of a loss's ``loss_args``."""
    hints = typing.get_type_hints(inspect.getattr_static(loss, "__init__"))
    explained = described(loss)
    rows = [
        (
            f"`{name}`",
            escape(type_text(hints[name])),
            f"`{json.dumps(parameter.default, ensure_ascii=False)}`",
            explained[name],
        )
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.default is not parameter.empty
    ]
    return markdown_table(("loss_args", "type", "default", "meaning"), rows) if rows else ""


def script_flags() -> str:
    """A section per script: what it does, its flags."""
    parts = [
        "# Script flags",
        "Flags are given as `--name value`. A list is given as words or as JSON, an object as "
        "JSON, null as `null`; a bare `--name` means true. `--config FILE` reads a JSON or YAML "
        "file of the same keys, which flags override. The keys of `scripts/train.py` are in "
        "[Recipe keys](recipe_keys.md).",
    ]
    groups = {script: grouped(keys(kind)) for script, kind in SCRIPTS.items()}
    uses: dict[tuple[str, str], list[str]] = {}
    for script, its in groups.items():
        for group in its:
            uses.setdefault(group, []).append(f"`{script}`")
    for script, its in groups.items():
        parts += [f"## `scripts/{script}`", usage_of(script)]
        parts += [
            f"### {heading}\n\n{text}" for heading, text in its if len(uses[heading, text]) == 1
        ]
        shared = [heading for heading, text in its if len(uses[heading, text]) > 1]
        if shared:
            parts.append(f"And of the [shared settings](#shared-settings): {'; '.join(shared)}.")
    parts.append("## Shared settings")
    for (heading, text), scripts in uses.items():
        if len(scripts) > 1:
            parts.append(f"### {heading}\n\nOf {', '.join(scripts)}.\n\n{text}")
    return "\n\n".join(parts)


def usage_of(script: str) -> str:
    """What ``--help`` says of a script or command, without its examples."""
    name, _, command = script.partition(".py")
    module = importlib.import_module(
        f"preparation.commands.{command.strip()}" if command else f"scripts.{name}"
    )
    lines = (module.__doc__ or "").splitlines()
    kept = "\n".join(line for line in lines if not line.startswith("    "))
    return single_quoted(re.sub(r"\n{3,}", "\n\n", kept)).replace("<", "&lt;")


def grouped(found: Iterable[Key]) -> list[tuple[str, str]]:
    """A heading and a table for each class that declares some of the keys."""
    groups = itertools.groupby(found, lambda key: key.group)
    return [(single_quoted(group), table(its)) for group, its in groups]


def table(found: Iterable[Key]) -> str:
    """Type, default and help of the keys."""
    rows = [
        (
            f"`{key.name}`",
            escape(key.type),
            default_of(key),
            escape(key.help.removesuffix(" Required.")),
        )
        for key in found
    ]
    return markdown_table(("key", "type", "default", "meaning"), rows)


def default_of(key: Key) -> str:
    """As it is written in a recipe, or "required"; the same on every machine."""
    if key.default == "required" or key.help.endswith(" Required."):
        return "required"
    return f"`{key.default.replace(str(HF_DATASETS_CACHE), '$HF_DATASETS_CACHE')}`"


def prose(thing: Any) -> str:
    """The docstring of a class without its ``Args:``, as Markdown."""
    return single_quoted(inspect.cleandoc(thing.__doc__ or "").split("\nArgs:")[0])


def described(thing: Any) -> dict[str, str]:
    """Name -> text of the ``Args:`` of a docstring."""
    _, _, section = inspect.cleandoc(thing.__doc__ or "").partition("\nArgs:\n")
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: escape(single_quoted(" ".join(text.split()))) for name, text in found}


def single_quoted(text: str) -> str:
    """Code as Markdown has it, where docstrings have two backticks."""
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL).strip()


def where(thing: Any) -> str:
    """A class and its file."""
    module = importlib.import_module(thing.__module__)
    file = Path(str(module.__file__)).relative_to(ROOT)
    return f"`{thing.__name__}` ([{file}](../../{file}))"


def escape(text: str) -> str:
    """For a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def markdown_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
