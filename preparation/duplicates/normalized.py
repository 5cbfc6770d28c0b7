"""Normalise text for duplicate detection: NFKC, case, spacing, sentence punctuation."""

import re
import unicodedata

from common.hashing import text_hash

# A point, comma, colon or apostrophe inside a word or number stays: 3.14, don't.
_NOT_A_WORD = re.compile(r"(?<=[a-z0-9])[.,:'](?=[a-z0-9])|(?P<mark>[^\w\s])")
# Han characters and kana are written without spaces: one beside them says nothing.
_CJK = "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_BESIDE_CJK = re.compile(rf"(?<={_CJK}) | (?={_CJK})")
_KEPT = frozenset("#%&*-/@\\")  # they change what is said: C# is not C, and -5 is not 5


def normalize(text: str) -> str:
    """Fold a text (NFKC, case), drop punctuation, put one space between words, none beside Han.

    Symbols stay, as they change what is said. A text of punctuation alone stays too.

    >>> normalize("Ｈｅｌｌｏ,  WORLD!")
    'hello world'
    >>> normalize("高血压，怎么办？")
    '高血压怎么办'
    >>> normalize("C++ 3.14 -5?")
    'c++ 3.14 -5'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = " ".join(_NOT_A_WORD.sub(_kept, folded).split())
    return _BESIDE_CJK.sub("", words) or text.strip()


def _kept(match: re.Match[str]) -> str:
    mark = match.group()
    if match.lastgroup is None or mark in _KEPT or unicodedata.category(mark)[0] in "SM":
        return mark
    return " "


def normalized_hash(text: str) -> int:
    """Hash the normalised text to 64 bits, the same in every process."""
    return text_hash(normalize(text))
