"""Read, shorten and write MLDR: queries with long documents, in many languages."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from common.hashing import text_hash
from loaders.formats.sources import Source
from loaders.parsing.fields import RowError, as_text, show
from preparation.beir import BeirFolder
from preparation.passages import best_passages, split_passages

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Document:
    """A text with the id that it has in the corpus."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class MldrRow:
    """A query with documents."""

    id: str
    query: str
    positives: list[Document]
    negatives: list[Document]


def is_corpus(source: Source) -> bool:
    """Whether a file is a corpus (documents without queries), by its first record."""
    first = next(source.records(), None)
    fields = first.fields if first is not None else None
    return isinstance(fields, dict) and "query" not in fields and "docid" in fields


def read_corpus(source: Source) -> Iterator[Document]:
    """Yield the documents of a corpus file.

    Raises:
        ValueError: For the first bad record: file, line, reason.
    """
    return _parsed(source, _document)


def read_rows(source: Source) -> Iterator[MldrRow]:
    """Yield the queries of a file, with their documents.

    Raises:
        ValueError: For the first bad record (file, line, reason), and for a file without any.
    """
    empty = True
    for row in _parsed(source, _row):
        empty = False
        yield row
    if empty:
        raise ValueError(f"{source.name}: there is no row in it")


def _parsed(source: Source, parse: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    for record in source.records():
        try:
            if record.problem is not None:
                raise RowError(record.problem)
            if not isinstance(record.fields, dict):
                raise RowError(
                    f"a row must be an object with named fields, got {show(record.fields)}"
                )
            yield parse(record.fields)
        except RowError as error:
            raise ValueError(f"{source.name}:{record.line}: {error}") from None


def _row(fields: dict[str, Any]) -> MldrRow:
    positives = _documents(fields, "positive_passages")
    if not positives:
        raise RowError('"positive_passages" is empty or missing')
    negatives = _documents(fields, "negative_passages")
    if both := {document.id for document in positives} & {each.id for each in negatives}:
        raise RowError(f"the document {show(min(both))} is both positive and negative")
    query_id = _identifier(fields.get("query_id"), "query_id")
    return MldrRow(query_id, as_text(fields.get("query"), "query"), positives, negatives)


def _documents(fields: dict[str, Any], name: str) -> list[Document]:
    items = fields.get(name)
    if items is None:
        return []
    if not isinstance(items, list):
        raise RowError(f'"{name}" must be a list, got {show(items)}')
    documents = []
    for at, item in enumerate(items):
        if not isinstance(item, dict):
            raise RowError(f'"{name}[{at}]" must be an object, got {show(item)}')
        documents.append(_document(item, f"{name}[{at}]."))
    return documents


def _document(fields: dict[str, Any], prefix: str = "") -> Document:
    document_id = _identifier(fields.get("docid"), f"{prefix}docid")
    return Document(document_id, as_text(fields.get("text"), f"{prefix}text"))


def _identifier(value: object, name: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = as_text(value, name)
    if any(character.isspace() for character in text):
        raise RowError(f'"{name}" is {show(text)}; an id may not hold spaces')
    return text


@dataclass
class Shortening:
    """How long documents are shortened: not at all, cut, or split into passages.

    Args:
        max_characters: Leave out what comes after so many characters; None: nothing.
        passage_size: Instead, split documents into passages of at most so many characters; see
            ``split_passages``.
        best: Of each document of a row, take this many passages: those that match the query best
            by BM25. Of a positive document these are the positives, and its other passages are
            neither positive nor negative; of a negative document they are its negatives.

    Attributes:
        cut: How many documents of rows were cut.
        unmatched: How many documents had no passage with a word of the query.
    """

    max_characters: int | None
    passage_size: int | None
    best: int
    cut: int = 0
    unmatched: int = 0

    def pieces(self, document: Document) -> list[Document]:
        """Shorten a corpus document: itself, cut, or its passages ``id#0``, ``id#1``, ..."""
        if self.passage_size:
            texts = split_passages(document.text, self.passage_size)
            return [Document(f"{document.id}#{at}", text) for at, text in enumerate(texts)]
        if self.max_characters:
            return [Document(document.id, document.text.strip()[: self.max_characters].rstrip())]
        return [document]

    def row(self, row: MldrRow) -> MldrRow:
        """Shorten a row's documents, or replace them by their best passages."""
        whole = row.positives + row.negatives
        if self.max_characters:
            self.cut += sum(len(document.text.strip()) > self.max_characters for document in whole)
        documents = [self.pieces(document) for document in whole]
        if self.passage_size:
            texts = [[piece.text for piece in pieces] for pieces in documents]
            places, unmatched = best_passages(row.query, texts, self.best)
            self.unmatched += unmatched
            documents = [
                [pieces[place] for place in chosen]
                for pieces, chosen in zip(documents, places, strict=True)
            ]
        at = len(row.positives)
        positives = [piece for pieces in documents[:at] for piece in pieces]
        negatives = [piece for pieces in documents[at:] for piece in pieces]
        return MldrRow(row.id, row.query, positives, negatives)


class MldrFolder(BeirFolder):
    """Writer of MLDR as BEIR: each document and query once, positives judged 1, negatives 0.

    With passages, the corpus holds passages, and those of a positive document that are its
    positives in training are judged 1; its others are not judged.

    Raises:
        ValueError: Where one id stands for two texts, or a query is judged twice in a split.
    """

    def __init__(self, folder: Path, splits: Collection[str], shortening: Shortening) -> None:
        super().__init__(folder, splits)
        self.shortening = shortening
        # An id, and a hash in place of the text.
        self.known_documents: dict[str, int] = {}
        self.known_queries: dict[str, int] = {}
        self.judged: set[tuple[str, str]] = set()
        self.added = 0  # documents of rows that were not in a corpus

    def add_whole(self, document: Document) -> bool:
        """Add a document, unless it is there; return whether it was new."""
        if not _is_new(self.known_documents, "document", document.id, document.text):
            return False
        for piece in self.shortening.pieces(document):
            self.add_document(piece.id, piece.text)
        return True

    def add_row(self, split: str, row: MldrRow, shortened: MldrRow) -> None:
        """Add a query and its whole documents, and judge in a split what is left of them."""
        if (split, row.id) in self.judged:
            raise ValueError(f"the query_id {row.id} occurs twice in {split}; give each its own id")
        self.judged.add((split, row.id))
        if _is_new(self.known_queries, "query", row.id, row.query):
            self.add_query(row.id, row.query)
        for document in row.positives + row.negatives:
            self.added += self.add_whole(document)
        for grade, pieces in ((1, shortened.positives), (0, shortened.negatives)):
            for piece_id in dict.fromkeys(piece.id for piece in pieces):
                self.judge(split, row.id, piece_id, grade)


def _is_new(known: dict[str, int], kind: str, identifier: str, text: str) -> bool:
    digest = text_hash(text)
    if identifier not in known:
        known[identifier] = digest
        return True
    if known[identifier] != digest:
        raise ValueError(f"the {kind} {identifier} has two different texts; give each its own id")
    return False
