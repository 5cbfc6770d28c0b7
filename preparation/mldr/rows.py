"""Read and shorten MLDR rows: a query with long positive and negative documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loaders.formats.records import Record
from loaders.formats.sources import Source
from loaders.parsing.fields import RowError, as_text, show
from preparation.passages import best_passages, split_passages


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
    for record in source.records():
        try:
            yield _document(_object(record), "")
        except RowError as error:
            raise ValueError(f"{source.name}:{record.line}: {error}") from None


def read_rows(source: Source) -> Iterator[MldrRow]:
    """Yield the queries of a file, with their documents.

    Raises:
        ValueError: For the first bad record: file, line, reason.
    """
    empty = True
    for record in source.records():
        empty = False
        try:
            fields = _object(record)
            positives = _documents(fields, "positive_passages")
            if not positives:
                raise RowError('"positive_passages" is empty or missing')
            negatives = _documents(fields, "negative_passages")
            if both := {document.id for document in positives} & {each.id for each in negatives}:
                raise RowError(f"the document {show(min(both))} is both positive and negative")
            query_id = _identifier(fields.get("query_id"), "query_id")
            query = as_text(fields.get("query"), "query")
            yield MldrRow(query_id, query, positives, negatives)
        except RowError as error:
            raise ValueError(f"{source.name}:{record.line}: {error}") from None
    if empty:
        raise ValueError(f"{source.name}: there is no row in it")


def _object(record: Record) -> dict[str, Any]:
    if record.problem is not None:
        raise RowError(record.problem)
    if not isinstance(record.fields, dict):
        raise RowError(f"a row must be an object with named fields, got {show(record.fields)}")
    return record.fields


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


def _document(fields: dict[str, Any], prefix: str) -> Document:
    document_id = _identifier(fields.get("docid"), f"{prefix}docid")
    return Document(document_id, as_text(fields.get("text"), f"{prefix}text"))


def _identifier(value: object, name: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = as_text(value, name)
    if any(character.isspace() for character in text):
        raise RowError(f'"{name}" is {show(text)}; an id may not hold spaces')
    return text


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

    def __init__(
        self, max_characters: int | None = None, passage_size: int | None = None, best: int = 1
    ) -> None:
        self.max_characters = max_characters
        self.passage_size = passage_size
        self.best = best
        self.cut = self.unmatched = 0

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
