"""Cut long documents into passages, and select the passages that match a query best (BM25)."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from common.bm25 import K1, B, tokenize

_PARAGRAPH = re.compile(r"\s*\n\s*")
# The marks that end a sentence, with closing quotes and brackets; Latin ones before a space only,
# so that 3.14 and e.g.this are not torn apart.
_SENTENCE = re.compile(r"""[。！？；…]+[”’」』）】"')\]]*|[.!?]+[”’"')\]]*(?=\s)""")
_SPACE = re.compile(r"\s+")


def split_passages(text: str, size: int) -> list[str]:
    """Split a text into passages of at most ``size`` characters; no visible one is left out.

    A passage holds as many whole paragraphs (lines) as fit. If those fill less than half of it,
    it ends after the last sentence that fits; if that too leaves it less than half full, at the
    last space; without a space in its second half, at ``size``. So each passage but the last of
    a text has between size / 2 and ``size`` characters, but for spaces at its ends.
    """
    if size < 2:
        raise ValueError(f"a passage must have at least 2 characters, got {size}")
    passages: list[str] = []
    start = 0
    while len(text) - start > size:
        end = _cut(text, start, size)
        passages.append(text[start:end].strip())
        start = end
        while start < len(text) and text[start].isspace():
            start += 1
    passages.append(text[start:].strip())
    return [passage for passage in passages if passage]


def _cut(text: str, start: int, size: int) -> int:
    """Return the end of the passage that begins at ``start``."""
    half, limit = start + (size + 1) // 2, start + size
    # One character more than fits: what follows decides whether a boundary is there.
    for boundary, at_end in ((_PARAGRAPH, False), (_SENTENCE, True), (_SPACE, False)):
        found = boundary.finditer(text, half, limit + 1)
        places = [match.end() if at_end else match.start() for match in found]
        if fitting := [place for place in places if place <= limit]:
            return fitting[-1]
    return limit


def best_passages(
    query: str, documents: Sequence[Sequence[str]], count: int
) -> tuple[list[list[int]], int]:
    """Return for each document the indices of the passages that match the query best, by BM25.

    Word frequencies are those of all the documents given. Of passages that match equally the
    first is taken.

    Args:
        query: What they are to answer.
        documents: The passages of each document.
        count: How many to take of a document at most.

    Returns:
        The places of each document, in the order of the text, and the number of documents in
        which no passage shares a word with the query: of those it is the first ones.
    """
    scores = bm25_scores(query, [passage for document in documents for passage in document])
    chosen: list[list[int]] = []
    unmatched = begin = 0
    for document in documents:
        own = scores[begin : begin + len(document)]
        begin += len(document)
        order = sorted(range(len(own)), key=own.__getitem__, reverse=True)
        chosen.append(sorted(order[:count]))
        unmatched += not any(own)
    return chosen, unmatched


def bm25_scores(query: str, passages: Sequence[str]) -> list[float]:
    """Score each passage as ``BM25(passages).search([query])`` does.

    An index serves many queries; for a single one, counting its own words alone is ten times
    faster.
    """
    asked = Counter(tokenize(query))
    lengths: list[int] = []
    counts: list[dict[str, int]] = []
    for passage in passages:
        tokens = tokenize(passage)
        lengths.append(len(tokens))
        counts.append(Counter(token for token in tokens if token in asked))
    mean = sum(lengths) / len(lengths)
    frequency = Counter(word for found in counts for word in found)
    idf = {
        word: math.log1p((len(passages) - frequency[word] + 0.5) / (frequency[word] + 0.5))
        for word in asked
    }
    return [
        sum(
            asked[word] * idf[word] * tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / mean))
            for word, tf in found.items()
        )
        for found, length in zip(counts, lengths, strict=True)
    ]
