"""Filters on the metadata of documents: one form, which each database gets in its own language.

    {"lang": "en"}                         the value, or a list that has it
    {"lang": ["en", "zh"]}                 any of these
    {"year": {"gte": 2020, "lt": 2024}}    numbers: gt, gte, lt, lte
    {"lang": {"not": "en"}}                anything else, or nothing
    {"author.name": "Ada"}                 inside an object, or one of a list of objects

All that is named must hold.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loaders.parsing.fields import RowError, check_characters, show

Value = str | int | float | bool
Comparison = Literal["gt", "gte", "lt", "lte"]
SIGNS: dict[Comparison, str] = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
NAME = re.compile(r"[\w-]+(\.[\w-]+){0,4}")
OWN = ("id", "text", "metadata")  # of a document as it is given back, beside its metadata
MOST = 2**53  # from there on databases round whole numbers, and so would equal what is not


@dataclass(frozen=True)
class AnyOf:
    """The field is one of the values, or a list that has one; ``negated``: it is not."""

    path: tuple[str, ...]
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True)
class Compared:
    """The field is a number that compares so with the value."""

    path: tuple[str, ...]
    by: Comparison
    value: float


Filter = tuple[AnyOf | Compared, ...]


def parse_filter(given: Mapping[str, Any]) -> Filter:
    """Read a filter.

    Raises:
        ValueError: It is malformed; the message names the field.
    """
    found: list[AnyOf | Compared] = []
    for name, condition in given.items():
        if not NAME.fullmatch(name):
            raise ValueError(
                f"filter: {name!r} is not a valid field; names have letters, digits, _ and -, and "
                "up to four dots lead into objects"
            )
        path = tuple(name.split("."))
        if path[0] in OWN:
            reason = "is a document's own field, and filters are of its metadata; leave it out"
            if path[0] == "metadata" and path[1:]:
                reason = f"write {'.'.join(path[1:])}; all fields of a filter are of the metadata"
            raise ValueError(f"filter: {name}: {reason}")
        if not isinstance(condition, dict):
            found.append(_any_of(path, condition))
            continue
        if not condition:
            raise ValueError(f"filter: {name}: is empty; give a value, or one of {_words()}")
        for word, value in condition.items():
            found.append(_condition(path, word, value))
    return tuple(found)


def _condition(path: tuple[str, ...], word: str, value: Any) -> AnyOf | Compared:
    name = ".".join(path)
    if word == "not":
        return _any_of(path, value, negated=True)
    if word not in SIGNS:
        raise ValueError(f"filter: {name}: unknown condition {word!r}; known are {_words()}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"filter: {name}: {word} compares numbers, got {show(value)}")
    return Compared(path, word, _checked(value, name))


def _any_of(path: tuple[str, ...], given: Any, negated: bool = False) -> AnyOf:
    name, values = ".".join(path), given if isinstance(given, list) else [given]
    wrong = [value for value in values if not isinstance(value, Value)]
    if wrong or not values:
        shown = show(wrong[0]) if wrong else "an empty list"
        raise ValueError(
            f"filter: {name}: give a text, a number, true or false, or a list of these; got {shown}"
        )
    return AnyOf(path, tuple(_checked(value, name) for value in values), negated)


def _checked(value: Any, name: str) -> Any:
    """The value, unless no database can compare it exactly."""
    if isinstance(value, str):
        try:
            return check_characters(value, name)
        except RowError as error:
            raise ValueError(f"filter: {error}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"filter: {name}: {value} is not a number to compare with")
    if not isinstance(value, bool) and abs(value) >= MOST:
        raise ValueError(
            f"filter: {name}: {show(value)} is 2^53 or more, where databases round whole numbers; "
            "keep such numbers as texts"
        )
    return value


def _words() -> str:
    return ", ".join([*SIGNS, "not"])
