"""Write docs/reference/ from the code: recipe keys, objectives and script flags.

    python docs/generate.py

A test holds the files equal to what this writes, so run it after changing a dataclass of settings,
the table of objectives or the docstring of a loss.
"""

import dataclasses
import importlib
import inspect
import json
import re
import types
import typing
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from serving.settings import ServeSettings
from trainers import OBJECTIVES
from trainers.config.arguments import TandemArguments

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"

# How a script is called, and the dataclass of its flags: one line per script or command.
SCRIPTS: dict[str, type] = {
    "serve.py": ServeSettings,
}

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Any: "anything",
    type(None): "null",
    list: "list",
    dict: "object",
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
    made = {
        "recipe_keys.md": recipe_keys(),
        "objectives.md": objectives(),
        "script_flags.md": script_flags(),
    }
    return {
        name: f"<!-- Written by docs/generate.py; change the code instead. -->\n{text.strip()}\n"
        for name, text in made.items()
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
    for kind in inspect.getmro(TandemArguments):
        if not dataclasses.is_dataclass(kind) or issubclass(TrainingArguments, kind):
            continue
        own = [name for name in kind.__annotations__ if name not in theirs]
        parts += [f"## {kind.__name__}", prose(kind), table(kind, own)]
    changed = [name for name in TandemArguments.__annotations__ if name in theirs]
    parts += [
        "## Keys of TrainingArguments with another default",
        table(TandemArguments, changed),
    ]
    return "\n\n".join(parts)


def objectives() -> str:
    """A section per objective: what it takes, its loss, the arguments of the loss."""
    parts = [
        "# Objectives",
        "One section per row of `trainers/objectives.py`. Which one to choose: "
        "[Objectives](../guide/objectives.md).",
    ]
    for name, row in OBJECTIVES.items():
        needs = [
            what
            for what, needed in (
                ("negatives", row.needs_negatives),
                ("teacher scores", row.needs_scores),
            )
            if needed
        ]
        parts += [
            f"## `{name}`",
            "\n".join(
                [
                    f"- model: {row.model}",
                    f"- rows: {' or '.join(f'`{shape}`' for shape in row.shapes)}"
                    + (f", with {' and '.join(needs)}" if needs else ""),
                    f"- loss: {where(row.loss)}",
                    f"- collator: {where(row.collator)}",
                    f"- trainer: {where(row.trainer)}",
                ]
            ),
            prose(row.loss),
            loss_arguments(row.loss),
        ]
    return "\n\n".join(part for part in parts if part)


def loss_arguments(loss: type) -> str:
    """The table of a loss's ``loss_args``."""
    hints = typing.get_type_hints(inspect.getattr_static(loss, "__init__"))
    explained = described(loss)
    rows = [
        (f"`{name}`", in_words(hints[name]), code(parameter.default), explained[name])
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
    for script, kind in SCRIPTS.items():
        names = [field.name for field in dataclasses.fields(kind)]
        parts += [f"## `scripts/{script}`", prose(kind), table(kind, names)]
    return "\n\n".join(parts)


def table(kind: type, names: Collection[str]) -> str:
    """Type, default and help of the fields of a dataclass."""
    hints = typing.get_type_hints(kind)
    rows = [
        (
            f"`{field.name}`",
            in_words(hints[field.name]),
            default_of(field),
            escape(
                " ".join(str(field.metadata.get("help", "")).split()).removesuffix(" Required.")
            ),
        )
        for field in dataclasses.fields(kind)
        if field.init and field.name in names
    ]
    return markdown_table(("key", "type", "default", "meaning"), rows)


def default_of(field: dataclasses.Field[Any]) -> str:
    """As it is written in a recipe, or "required"."""
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        value = field.default
    required = value is dataclasses.MISSING or "Required." in field.metadata.get("help", "")
    return "required" if required else code(getattr(value, "value", value))


def in_words(annotation: Any) -> str:
    """A type as the author of a recipe knows it."""
    origin, members = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(in_words(member) for member in members))
    if origin is typing.Literal:
        return ", ".join(code(member) for member in members)
    if origin is list:
        return f"list of {in_words(members[0])}"
    if origin is dict:
        return f"object of {in_words(members[1])}" if members[1] is not Any else "object"
    if origin is tuple:
        return "list of " + ", ".join(in_words(member) for member in members if member is not ...)
    return WORDS.get(annotation) or str(annotation)


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


def code(value: Any) -> str:
    """A value as it is written in a recipe."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def escape(text: str) -> str:
    """For a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def markdown_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
