"""BM25 (lexical search): a baseline for embedders and a miner of hard negatives."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

# Letters: D documents, Q queries of one block, V words of the vocabulary.

# Han and kana are written without spaces: they are indexed as unigrams and bigrams of characters,
# everything else that is a letter, a digit or "_" as words. Like Han: Thai, Lao, Burmese, Khmer.
_CJK = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e81-\u0edf\u1000-\u1049\u1050-\u109d"
    "\u1780-\u17d3\u17dc-\u17e9"
)
# Vowel signs and accents are no letters for ``re``, but belong to the letter before them (Hindi,
# Tamil, ...). Variation selectors do not: they choose a picture.
_NO_PART = re.compile(rf"[{_CJK}\u034f\u180b-\u180f\ufe00-\ufe0f]")
# Spelled out: one set of characters is searched twice as fast as words and marks in turn. Beyond
# U+FFFF are scripts of few texts, whose signs are taken as letters.
_PARTS = "".join(
    part
    for part in map(chr, range(0x30, 0x10000))
    if (part.isalnum() or part == "_" or unicodedata.category(part) in ("Mn", "Mc"))
    and not _NO_PART.match(part)
)
_TOKEN = re.compile(rf"(?P<cjk>[{_CJK}]+)|[^\W{_CJK}][{_PARTS}\U00010000-\U0001efff]*")
_UNIT = re.compile("(?s:.)[\u3099\u309a]*")  # a character, with the marks of decomposed kana
# Saturation of the term frequency, and length normalisation from 0 (none) to 1; as in Lucene.
K1, B = 1.2, 0.75
_BLOCK_BYTES = 64 * 2**20  # of the dense scores [Q, D] held at a time


def tokenize(text: str) -> list[str]:
    """Lower-cased words, and unigrams and bigrams of Chinese characters.

    Full-width letters and digits are folded to their plain forms (NFKC).

    >>> tokenize("BM25 检索模型")
    ['bm25', '检', '索', '模', '型', '检索', '索模', '模型']
    """
    tokens: list[str] = []
    for match in _TOKEN.finditer(_folded(text)):
        token = match.group()
        if match.lastgroup == "cjk":
            tokens.extend(token)
            tokens.extend(token[i : i + 2] for i in range(len(token) - 1))
        else:
            tokens.append(token)
    return tokens


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def highlights(text: str, query: str) -> list[tuple[int, int]]:
    """Where words of the query stand in a text: (start, stop) in characters, in order.

    Of Chinese, two characters in a row count, and single ones where they stand alone in the query.

    >>> highlights("Read a CSV: 读取文件", "csv 读取")
    [(7, 10), (12, 14)]
    """
    wanted = set()
    for match in _TOKEN.finditer(query):
        tokens = tokenize(match.group())
        pairs = [token for token in tokens if len(token) > 1]
        wanted.update(pairs if match.lastgroup == "cjk" and pairs else tokens)
    spans: list[tuple[int, int]] = []
    for match in _TOKEN.finditer(text):
        start, stop = match.span()
        found = [(start, stop)] if wanted.issuperset(tokenize(match.group())) else []
        if match.lastgroup == "cjk":
            units = [each.span() for each in _UNIT.finditer(text, start, stop)]
            spans_of_two = (
                (a, b) for at, (a, _) in enumerate(units) for _, b in units[at : at + 2]
            )
            found = [(a, b) for a, b in spans_of_two if _folded(text[a:b]) in wanted]
        for begin, end in found:
            if spans and begin <= spans[-1][1]:
                begin, end = spans.pop()[0], max(end, begin)
            spans.append((begin, end))
    return spans


class BM25:
    """An index of documents, scored as by Lucene (Robertson's BM25 with an idf above 0).

    A document's score is the sum over the words w of the query, repeated ones counted again, of::

        idf(w) * tf * (K1 + 1) / (tf + K1 * (1 - B + B * length / mean_length))
        idf(w) = ln(1 + (D - df + 0.5) / (df + 0.5))

    Args:
        documents: The texts; a hit names a document by its place in this list.

    Raises:
        ValueError: No document has a word.
    """

    def __init__(self, documents: Sequence[str]) -> None:
        if not any(tokenize(document) for document in documents):
            raise ValueError(
                f"BM25 found no word in {len(documents)} documents; give it at least one text"
            )
        self._vectorizer = CountVectorizer(analyzer=tokenize)
        counts = self._vectorizer.fit_transform(documents).tocoo()  # [D, V]
        self.num_documents, vocabulary_size = counts.shape
        lengths = np.bincount(counts.row, weights=counts.data, minlength=self.num_documents)
        document_frequency = np.bincount(counts.col, minlength=vocabulary_size)
        idf = np.log1p((self.num_documents - document_frequency + 0.5) / (document_frequency + 0.5))
        damping = K1 * (1 - B + B * lengths / lengths.mean())
        tf = counts.data.astype(np.float64)
        weights = idf[counts.col] * tf * (K1 + 1) / (tf + damping[counts.row])
        self._weights = sparse.csr_matrix(  # [V, D]
            (weights.astype(np.float32), (counts.col, counts.row)),
            shape=(vocabulary_size, self.num_documents),
        )

    def search(self, queries: Sequence[str], top_k: int) -> Iterator[list[tuple[int, float]]]:
        """Yield the best (document, score) of each query, best first, ties by place.

        A document that shares no word with the query is no hit, so a list may be shorter than
        ``top_k``. Queries are scored in blocks, so that memory is bounded.

        Raises:
            ValueError: ``top_k`` is below 1.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        for scores in self.score_each(queries):
            yield best_hits(scores, top_k)

    def score_each(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Yield the scores of all documents [D] for each query, in blocks of bounded memory."""
        block = max(1, _BLOCK_BYTES // (4 * self.num_documents))
        for start in range(0, len(queries), block):
            yield from self.scores(queries[start : start + block])

    def scores(self, queries: Sequence[str]) -> NDArray[np.float32]:
        """The scores of all documents for each query [Q, D]; 0 where they share no word."""
        counts = self._vectorizer.transform(queries).astype(np.float32)  # [Q, V]
        scores: NDArray[np.float32] = (counts @ self._weights).toarray()
        return scores


def best_hits(scores: NDArray[np.float32], top_k: int) -> list[tuple[int, float]]:
    """The ``top_k`` (place, score) with the highest scores [D] above 0, ties by place."""
    above = np.flatnonzero(scores > 0)
    places = above[best_places(scores[above], top_k)]
    return list(zip(places.tolist(), scores[places].tolist(), strict=True))


def best_places(scores: NDArray[np.float32], top_k: int) -> NDArray[np.intp]:
    """The places of the ``top_k`` highest scores [D], best first, ties by place."""
    top_k = min(top_k, len(scores))
    # First the k-th score, then all that reach it: argpartition alone breaks ties arbitrarily.
    threshold = np.partition(scores, -top_k)[-top_k] if top_k else np.inf
    places = np.flatnonzero(scores >= threshold)
    return places[np.argsort(-scores[places], kind="stable")][:top_k]
