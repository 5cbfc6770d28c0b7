"""Check values of a recipe, and read the text of flags, by the type of a dataclass field.

Recipe values are checked as JSON types, without conversions: "no" is no boolean and 1 is no text.
Flags are text and are read as the field's type.
"""

import enum
import json
import math
import os
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

NUMBERS: dict[Any, str] = {int: "an integer", float: "a number"}
MAY_BE_EMPTY = ("query_prompt", "document_prompt", "debug")
LONGEST_SHOWN = 200  # characters of a value in a message
# They would end the line of a message, hide a part of it, or not be printed at all.
_NOT_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: str) -> str:
    """The text with its line breaks, control characters and half surrogates as escapes."""
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shorten(text: str) -> str:
    """The text as a message shows it: on one line, and its beginning if it is long."""
    text = one_line(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def typed(name: str, value: Any, annotation: Any) -> Any:
    """Return a recipe's value, if it is of the type ``annotation``.

    JSON has neither paths nor tuples: for those, text and lists are taken.

    Raises:
        ValueError: It is of another type, is not among the choices, or is not finite.
    """
    _check_choice(name, value, annotation)
    _check_finite(name, value)
    _check_empty(name, value)
    kinds = [typing.get_origin(kind) or kind for kind in _members(annotation)]
    converted = value
    if Path in kinds and isinstance(value, str):
        converted = Path(os.path.expanduser(value))  # ~ in a recipe, or in --name=~/folder
    elif tuple in kinds and isinstance(value, list):
        converted = tuple(value)
    adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        return adapter.validate_python(converted, strict=True)
    except ValidationError as error:
        shown = json.dumps(value, ensure_ascii=False, default=str)
        raise ValueError(f"{name}: {shorten(shown)} is not {_wanted(annotation, error)}") from None


def typed_flag(name: str, values: Sequence[str], annotation: Any) -> Any:
    """Read the words after a flag as the type ``annotation``.

    A bare flag is true; lists are given as several words or as JSON, objects as JSON.

    Raises:
        ValueError: They are not of the type.
    """
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
    numbers = [kind for kind in (int, float) if kind in kinds]
    for kind in kinds if not numbers or len(values) > 1 else ():
        if (typing.get_origin(kind) or kind) in (list, tuple):
            item = (*typing.get_args(kind), Any)[0]
            return typed(name, [typed_flag(name, [word], item) for word in values], annotation)
    if len(values) > 1:
        raise ValueError(f"--{name}: takes one value, got {len(values)} ({text})")
    if bool in kinds and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for kind in numbers:
        try:
            number = kind(text)
        except ValueError:
            continue
        _check_finite(name, number)
        return number
    _check_choice(name, text, annotation)
    if (numbers or bool in kinds) and str not in kinds and text not in _choices(annotation):
        raise ValueError(f"--{name}: {shorten(json.dumps(text))} is not {_wanted(annotation)}")
    return typed(name, text, annotation)


def _members(annotation: Any) -> list[Any]:
    """The types of a union, or the one type."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return list(typing.get_args(annotation))
    return [annotation]


def _choices(annotation: Any) -> list[Any]:
    """The words to choose from, if there are some."""
    found: list[Any] = []
    for kind in _members(annotation):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            found += [member.value for member in kind]
        elif typing.get_origin(kind) is typing.Literal:
            found += typing.get_args(kind)
    return found


def _check_choice(name: str, value: Any, annotation: Any) -> None:
    choices = _choices(annotation)
    if choices and isinstance(value, str) and value not in choices:
        numbers = [NUMBERS[kind] for kind in _members(annotation) if kind in NUMBERS]
        wanted = ", ".join(map(str, [*choices, *numbers]))
        raise ValueError(f'{name}: "{shorten(value)}" is not one of {wanted}')


def _check_finite(name: str, value: Any) -> None:
    """Refuse NaN and infinity, which JSON does not have but Python's reader of it takes."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_finite(name, item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: {value} is not a finite number")


def _check_empty(name: str, value: Any) -> None:
    """Refuse an empty text, such as that of a shell variable that is not set: as a path it would
    name the folder at hand, or nothing at all.
    """
    found = value == "" or (isinstance(value, list) and "" in value)
    if found and name.rpartition(".")[2] not in MAY_BE_EMPTY:
        raise ValueError(f"{name}: is an empty text; give a value, or leave it out")


def _wanted(annotation: Any, error: ValidationError | None = None) -> str:
    words = {
        **NUMBERS,
        bool: "true or false",
        str: "text",
        list: "a list",
        dict: "an object",
        Path: "a path",
        type(None): "null",
    }
    wanted = []
    for kind in _members(annotation):
        origin = typing.get_origin(kind) or kind
        if origin is tuple:
            wanted.append(f"a list of {len(typing.get_args(kind))}")
        elif origin in words:
            wanted.append(words[origin])
    text = " or ".join(dict.fromkeys(wanted)) or str(annotation)
    deepest = max((e["loc"] for e in error.errors()), key=len, default=()) if error else ()
    if len(deepest) > 1 and error is not None and error.error_count() == 1:
        text += f" of the right kind at {deepest[-1]!r} ({error.errors()[0]['msg'].lower()})"
    return text


def type_text(annotation: Any) -> str:
    """Name a field's type as users write its values: ``int or null``, ``error | skip``."""
    return " or ".join(dict.fromkeys(_type_word(kind) for kind in _members(annotation)))


def _type_word(kind: Any) -> str:
    origin, items = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Literal:
        return " | ".join(map(str, items))
    if origin in (list, tuple):
        return "list of " + (type_text(items[0]) if items else "values")
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return "str"
    words = {dict: "object", Path: "path", type(None): "null"}
    return words.get(origin, getattr(origin, "__name__", str(origin)))
