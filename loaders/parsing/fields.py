"""Names of fields, and checks of their values."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from common.typed_values import one_line

# Field -> the names it is read from, the first that is present and not null.
ALIASES: dict[str, tuple[str, ...]] = {
    "query": ("query", "anchor", "sentence1", "text1"),
    "doc": ("doc", "document", "content", "passage", "text", "sentence2", "text2"),
    "rel": ("rel", "relevance", "score", "label", "labels"),
    "weight": ("weight",),
    "key": ("key", "id"),
    "prompt": ("prompt",),
    "pos_doc": ("pos_doc",),
    "pos": ("pos", "positives", "positive", "positive_passages"),
    "neg": ("neg", "negatives", "negative", "negative_passages"),
    "pos_scores": ("pos_scores", "scores"),
    "neg_scores": ("neg_scores",),
    "hits": ("hits",),
}

LARGEST = 1e30  # number: in float32 the sum over a batch of such numbers is still finite

_VALUES = reprlib.Repr()
_VALUES.maxstring = _VALUES.maxother = _VALUES.maxlong = 60


class RowError(ValueError):
    """A record is not a valid row; the message is the reason, without file and line."""

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason))  # names of fields are whatever stands in the file


def show(value: object) -> str:
    """A value for an error message, shortened."""
    return _VALUES.repr(value)


def require(record: Mapping[str, Any], field: str, place: str) -> str:
    """The name under which the object at ``place`` has ``field``, and not null."""
    name = next((name for name in ALIASES[field] if record.get(name) is not None), None)
    if name is None:
        first, *others = ALIASES[field]
        also = f" (also read from {', '.join(others)})" if others else ""
        raise RowError(f'missing field "{place}.{first}"{also}')
    return name


def passage_text(item: Mapping[str, Any], name: str) -> tuple[str, tuple[str, ...]]:
    """The text of a passage given as an object, and the names of the fields it is made of.

    A title is put before the text, as BEIR does.
    """
    doc = require(item, "doc", name)
    title, text = item.get("title"), item[doc]
    if title is None:
        return as_text(text, f"{name}.{doc}"), (doc,)
    for part, value in (("title", title), (doc, text)):
        if not isinstance(value, str):
            raise RowError(f'"{name}.{part}" must be a text, got {show(value)}')
    return as_text(f"{title} {text}".strip(), f"{name}.{doc}"), (doc, "title")


def check_characters(value: str, name: str) -> str:
    """Return ``value`` if tokenizers and Arrow accept all its characters."""
    if "\0" in value:
        raise RowError(f'"{name}" contains a NUL character')
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise RowError(f'"{name}" contains {half}, one half of a surrogate pair') from None
    return value


def as_text(value: object, name: str) -> str:
    """Return ``value`` if it is a text that is not blank."""
    if not isinstance(value, str):
        raise RowError(f'"{name}" must be a text, got {show(value)}')
    if not value or value.isspace():
        raise RowError(f'"{name}" is empty')
    return check_characters(value, name)


def as_bool(value: object) -> bool | None:
    """A boolean, or the word for one in a table (``true``, ``False``); otherwise None."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else ""
    return word == "true" if word in ("true", "false") else None


def as_score(value: object, name: str, from_text: bool) -> float:
    """A finite number; true and false are 1 and 0."""
    if isinstance(value, bool | np.bool_) or from_text:
        truth = as_bool(value)
        if truth is not None:
            return float(truth)
    return as_number(value, name, from_text)


def is_quoted_number(text: str) -> bool:
    """Whether a text is a number, which stands in quotes where numbers have none."""
    return text.strip().lstrip("+-").replace(".", "", 1).isdecimal()


def as_number(value: object, name: str, from_text: bool) -> float:
    """A finite number; ``from_text``: parsed, where the format has only texts (CSV, TSV)."""
    if isinstance(value, bool) or not isinstance(value, str if from_text else (int, float)):
        quoted = isinstance(value, str) and is_quoted_number(value)
        remedy = "; write it without quotes" if quoted else ""
        raise RowError(f'"{name}" must be a number, got {show(value)}{remedy}')
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise RowError(f'"{name}" must be a number, got {show(value)}') from None
    if not math.isfinite(number):
        raise RowError(f'"{name}" must be a finite number, got {show(value)}')
    if abs(number) > LARGEST:
        raise RowError(f'"{name}" must be a number up to {LARGEST:g}, got {show(value)}')
    return number


def as_weight(value: object, name: str, from_text: bool) -> float:
    """A number above 0, by which losses can divide."""
    number = as_number(value, name, from_text)
    if number < 1 / LARGEST:
        raise RowError(f'"{name}" must be above 0, {1 / LARGEST:g} at least, got {number:g}')
    return number


def as_relevance(number: float, name: str, label_range: tuple[float, float] | None) -> float:
    """``number``, mapped from ``label_range`` to [0, 1]."""
    low, high = label_range or (0.0, 1.0)
    if not low <= number <= high:
        if label_range is not None:
            raise RowError(f'"{name}" is {number:g}, outside label_range ({low:g}, {high:g})')
        raise RowError(
            f'"{name}" is {number:g}, outside [0, 1]; for another scale give label_range or '
            "label_map"
        )
    return (number - low) / (high - low)
