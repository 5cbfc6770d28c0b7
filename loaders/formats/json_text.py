"""Decode JSON: objects with their repeated names, arrays element by element."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from loaders.formats.opening import BrokenFile

_CHUNK = 1 << 20
_WHITESPACE = re.compile(r"[ \t\r\n]*")


@dataclass(repr=False)
class RepeatedName:
    """Takes the place of an object in which a name is repeated; a decoder keeps only the last.

    Attributes:
        name: The first repeated one.
        fields: The object as a plain decoder reads it.
    """

    name: str
    fields: dict[str, Any]

    def __repr__(self) -> str:
        return f'an object with two "{self.name}"'


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | RepeatedName:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    counts = Counter(name for name, _ in pairs)
    return RepeatedName(next(name for name, count in counts.items() if count > 1), fields)


DECODER = json.JSONDecoder(object_pairs_hook=_object)


class JsonArray:
    """Iterates over (line, element) of a text stream with one JSON array, in the memory of one.

    Raises:
        BrokenFile: While iterating, if the text is not a JSON array.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.text = ""  # a window of the file, parsed up to `at`
        self.at = 0
        self.line = 1
        self.ended = False

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        if self._next_character() != "[":
            raise BrokenFile(self.line, "not a JSON array")
        self.at += 1
        separator = "," if self._next_character() != "]" else "]"
        while separator == ",":
            self._next_character()
            yield self.line, self._element()
            separator = self._next_character()
            if separator not in (",", "]"):
                raise BrokenFile(self.line, 'not JSON: expected "," or "]" after an element')
            if separator == ",":
                self.at += 1
        self.at += 1
        if self._peek():
            raise BrokenFile(self.line, "there is more text after the end of the array")

    def _next_character(self) -> str:
        character = self._peek()
        if not character:
            raise BrokenFile(self.line, "the file ends within the JSON array")
        return character

    def _peek(self) -> str:
        """The next non-blank character; empty at the end of the file."""
        while True:
            match = _WHITESPACE.match(self.text, self.at)
            assert match is not None  # the pattern matches the empty string
            self._advance(match.end())
            if self.at < len(self.text):
                return self.text[self.at]
            if self.ended:
                return ""
            self._read_on()

    def _element(self) -> Any:
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self.ended or not _may_be_cut_off(error):
                    line = self.line + self.text.count("\n", self.at, error.pos)
                    raise BrokenFile(line, f"not JSON: {error.msg}") from None
            except (ValueError, RecursionError) as error:  # a number too long, a list too deep
                raise BrokenFile(self.line, f"not JSON: {error}") from None
            else:
                # "1.5" or "1e+5" cut off by the window would be read as 1: wait for more text.
                if end + 3 < len(self.text) or self.ended:
                    self._advance(end)
                    return value
            self._read_on()

    def _advance(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def _read_on(self) -> None:
        # Double the window, so that a huge element is decoded a logarithmic number of times.
        more = self.stream.read(max(_CHUNK, len(self.text) - self.at))
        self.text = self.text[self.at :] + more
        self.at = 0
        self.ended = not more


def _may_be_cut_off(error: json.JSONDecodeError) -> bool:
    """Whether more text could mend the error: it is at the end, or within an unfinished string."""
    # 16: a literal (-Infinity) or an escape (\ud83d\ude00) cut off is reported where it begins.
    return error.pos > len(error.doc) - 16 or error.msg.startswith("Unterminated string")
