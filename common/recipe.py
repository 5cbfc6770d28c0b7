"""Read a recipe and flags into the values of a dataclass, strictly.

Every key must be a field and every value of the field's type: an unknown key, a wrong type or a
word outside a choice is an error that names it. Recipe values are checked as JSON types ("no" is
no boolean); flags are text and are read as the field's type.
"""

import dataclasses
import difflib
import enum
import json
import math
import re
import types
import typing
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from common.strict_yaml import DEEPEST, read_yaml

# Of a recipe; the longest list in one has some hundred.
MOST_VALUES = 100_000
_SHOWN = 200  # characters of it in a message

# What people know from other scripts -> ours.
FAMILIAR = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "accumulation_steps": "gradient_accumulation_steps",
    "warmup_ratio": "warmup_steps (below 1 it is a share of all steps)",
    "warmup_proportion": "warmup_steps (below 1 it is a share of all steps)",
    "query_max_len": "query_max_length",
    "passage_max_len": "document_max_length",
    "doc_max_len": "document_max_length",
    "max_len": "max_length",
    "max_seq_length": "document_max_length (embedder) or max_length (reranker)",
    "max_label": "label_range: [lowest, highest]",
    "min_label": "label_range: [lowest, highest]",
    "scale": 'loss_args: {"temperature": 1 / scale}',
    "log_interval": "logging_steps",
    "model": "model_name_or_path",
    "model_path": "model_name_or_path",
    "train_data": "train_file",
    "train_dataset": "train_file",
    "val_data": "eval_file",
    "val_dataset": "eval_file",
    "save_path": "output_dir",
    "save_dir": "output_dir",
    "loss_type": "objective (classification is bce, regression is mse)",
    "temperature": 'loss_args: {"temperature": ...}',
    "margin": 'loss_args: {"margin": ...}',
    "sentence_pooling_method": "pooling",
    "normalize_embeddings": "normalize",
    "query_instruction_for_retrieval": "query_prompt",
    "mixed_precision": "bf16: true or fp16: true",
    "label2id": "label_map",
    "negatives_cross_device": "negatives_across_processes",
    "group_size": "train_group_size",
    "train_datasets": "train_files",
    "train_split": "split",
    "column_mapping": "columns",
}


def read_recipe(file: Path) -> dict[str, Any]:
    """The keys and values of a ``.json``, ``.yaml`` or ``.yml`` recipe."""
    if not file.is_file():
        raise ValueError(f"--config: there is no file {file}")
    if file.suffix not in {".json", ".yaml", ".yml"}:
        raise ValueError(f"--config: {file} is no recipe; give a .json, .yaml or .yml file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not UTF-8; save it as UTF-8") from None
    recipe = _read_json(text, file) if file.suffix == ".json" else read_yaml(text, str(file))
    _check_size(recipe, file)
    if not isinstance(recipe, dict):
        raise ValueError(f"{file}: a recipe is an object of keys and values")
    return recipe


def _read_json(text: str, file: Path) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError(f"{file}: not a recipe: lists or objects nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _check_size(recipe: Any, file: Path) -> None:
    """Refuse what later checks would not get through: YAML's aliases can stand for any number."""
    waiting, values = [(recipe, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if values > MOST_VALUES or depth > DEEPEST:
            raise ValueError(
                f"{file}: not a recipe: more than {MOST_VALUES} values, or nested more than "
                f"{DEEPEST} deep"
            )
        if isinstance(value, dict | list):
            inner = value.values() if isinstance(value, dict) else value
            waiting += [(item, depth + 1) for item in inner]


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{_cut(twice)}: stands in the recipe twice; keep one")
    return found


def read_flags(argv: Sequence[str]) -> dict[str, list[str]]:
    """``--name value ...`` and ``--name=value`` as name -> values; a bare ``--name`` gives []."""
    flags: dict[str, list[str]] = {}
    name = None
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name in flags:
                raise ValueError(f"--{name}: is given twice; keep one (several values: after it)")
            flags[name] = [value] if equals else []
        elif name is None:
            raise ValueError(f"{word}: a flag begins with --; a recipe is given as --config {word}")
        elif re.match("-[A-Za-z]", word):
            raise ValueError(
                f"{word}: a flag begins with two dashes, -{word}; a value that begins with one is "
                f"given as --{name}={word}"
            )
        else:
            flags[name].append(word)
    return flags


def check_names(names: Sequence[str], kind: Any) -> None:
    """Refuse names that are no fields of the dataclass ``kind``, suggesting what was meant."""
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    for name in names:
        check_key(name, name, fields, hint="--help lists all keys")


def check_key(place: str, name: str, known: Collection[str], hint: str) -> None:
    """Refuse a ``name`` that is not ``known``, suggesting what was meant, or else with a hint.

    Args:
        place: What the message calls the name.
    """
    if name in known:
        return
    close = difflib.get_close_matches(name[:_SHOWN], known, n=1)
    familiar = FAMILIAR.get(name, "")
    meant = familiar if re.split(r"\W", familiar)[0] in known else "".join(close)
    raise ValueError(
        f"{_cut(place)}: unknown key; " + (f"did you mean {meant}?" if meant else hint)
    )


def typed(name: str, value: Any, annotation: Any) -> Any:
    """``value`` of a recipe, if it is of the type ``annotation``."""
    _check_choice(name, value, annotation)
    _check_finite(name, value)
    adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        shown = json.dumps(value, ensure_ascii=False, default=str)
        raise ValueError(f"{name}: {_cut(shown)} is not {_wanted(annotation, error)}") from None


def typed_flag(name: str, values: Sequence[str], annotation: Any) -> Any:
    """The text of a flag as the type ``annotation``."""
    kinds = _members(annotation)
    if not values:
        if bool in kinds:
            return True
        raise ValueError(f"--{name}: a value is missing")
    text = " ".join(values)
    if text == "null" and type(None) in kinds:
        return None
    containers = {typing.get_origin(kind) or kind for kind in kinds} & {list, dict, tuple}
    if text[:1] in "[{" and containers:
        try:
            return typed(name, json.loads(text), annotation)
        except json.JSONDecodeError as error:
            raise ValueError(f"--{name}: {text} is not JSON: {error.msg}") from None
    if list in containers:
        (kind,) = (kind for kind in kinds if (typing.get_origin(kind) or kind) is list)
        (item,) = typing.get_args(kind) or (Any,)
        return typed(name, [typed_flag(name, [word], item) for word in values], annotation)
    if len(values) > 1:
        raise ValueError(f"--{name}: takes one value, got {len(values)} ({text})")
    _check_choice(name, text, annotation)
    if bool in kinds and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    numbers = [kind for kind in (int, float) if kind in kinds]
    for kind in numbers:
        try:
            number = kind(text)
        except ValueError:
            continue
        _check_finite(name, number)
        return number
    if (numbers or bool in kinds) and str not in kinds:
        raise ValueError(f"--{name}: {_cut(json.dumps(text))} is not {_wanted(annotation)}")
    return typed(name, text, annotation)


def merge(
    kind: Any, recipe: Mapping[str, Any], flags: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Checked values for fields of the dataclass ``kind``, from a recipe and flags, which win."""
    check_names([*recipe, *flags], kind)
    hints = typing.get_type_hints(kind)
    values = {name: typed(name, value, hints[name]) for name, value in recipe.items()}
    return values | {name: typed_flag(name, words, hints[name]) for name, words in flags.items()}


def _cut(text: str) -> str:
    """For a message."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _members(annotation: Any) -> list[Any]:
    """The types of a union, or the one type."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [annotation]


def _check_choice(name: str, value: Any, annotation: Any) -> None:
    for kind in _members(annotation):
        choices: list[Any] = []
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            choices = [member.value for member in kind]
        elif typing.get_origin(kind) is typing.Literal:
            choices = list(typing.get_args(kind))
        if choices and isinstance(value, str) and value not in choices:
            raise ValueError(
                f'{name}: "{_cut(value)}" is not one of {", ".join(map(str, choices))}'
            )


def _check_finite(name: str, value: Any) -> None:
    """JSON has no NaN and no infinity, but Python's reader takes them."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_finite(name, item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: {value} is not a finite number")


def _wanted(annotation: Any, error: ValidationError | None = None) -> str:
    words = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
        tuple: "a list",
        type(None): "null",
    }
    kinds = [typing.get_origin(kind) or kind for kind in _members(annotation)]
    wanted = [words[kind] for kind in kinds if kind in words]
    text = " or ".join(dict.fromkeys(wanted)) or str(annotation)
    deepest = max((e["loc"] for e in error.errors()), key=len, default=()) if error else ()
    if len(deepest) > 1 and error is not None and error.error_count() == 1:
        text += f" of the right kind at {deepest[-1]!r} ({error.errors()[0]['msg'].lower()})"
    return text
