"""Documents with their ids, from corpora and from training files."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from loaders import ReadOptions
from loaders.columns import Columns
from loaders.fields import RowError, as_text, passage_text, show
from loaders.records import Record
from loaders.row_stream import LocatedRow, RowStream
from loaders.row_texts import judged_documents
from loaders.sources import Source, find_sources

_IDS = ("_id", "docid", "id")


class Document(NamedTuple):
    """A text, and the id that its file gives it. Texts with one id are parts of one document."""

    text: str
    id: str | None


def training_documents(
    files: Sequence[str | Source], options: ReadOptions, positives_only: bool = False
) -> Iterator[Document]:
    """Yield the documents of training rows; those that are objects, as in MLDR, may have ids."""
    columns = Columns(options.columns)
    for located in RowStream(files, replace(options, rejected_file=None)):
        ids = dict(_documents_with_ids(located, columns))
        for text, relevance in judged_documents(located.row):
            if not positives_only or relevance >= options.positive_threshold:
                yield Document(text, ids.get(text))


def _documents_with_ids(located: LocatedRow, columns: Columns) -> Iterator[tuple[str, str]]:
    fields = columns.view(located.record.fields)
    names = [columns.find(fields, field) for field in ("pos", "pos_doc", "doc", "hits")]
    for name in [*filter(None, names), *columns.negatives(fields)]:
        items = fields[name] if isinstance(fields[name], list) else [fields[name]]
        for item in items:
            identifier = _id(item) if isinstance(item, dict) else None
            if identifier is not None:
                yield passage_text(item, name)[0], identifier


def corpus_documents(names: Sequence[str], options: ReadOptions) -> Iterator[Document]:
    """Yield the documents of corpora (``_id`` or ``docid``, ``title``, ``text``) or training files.

    Of a folder in the BEIR layout its ``corpus.jsonl`` is read. A title stands before its text.

    Raises:
        ValueError: For a record that is no document: file, line and reason.
    """
    for source in corpus_sources(names):
        columns = options.columns or ()
        first = next(iter(source.records(columns)), None)
        if first is None:
            raise ValueError(f"{source.name}: there is no document in it")
        if isinstance(first.fields, dict):
            read = _as_rows(first.fields, options)
            if read is not None:
                yield from training_documents([source], read)
                continue
        for record in source.records(columns):
            try:
                yield _document(record)
            except RowError as error:
                raise ValueError(f"{source.name}:{record.line}: {error}") from None


def _as_rows(fields: dict[str, Any], options: ReadOptions) -> ReadOptions | None:
    """How a file is read that has such a record; None if it is no training row."""
    for columns in (options.columns, None):
        known = Columns(columns)
        if known.find(known.view(fields), "query"):
            return replace(options, columns=columns, split=None)
    return None


def corpus_sources(names: Sequence[str]) -> list[Source]:
    """The files that ``corpus_documents`` reads; none of no names."""
    files = []
    for name in names:
        known = (Path(name) / f"corpus.jsonl{packed}" for packed in ("", ".gz"))
        files.append(next((str(file) for file in known if file.is_file()), name))
    return find_sources(files, evaluates=True) if files else []


def _document(record: Record) -> Document:
    if record.problem is not None:
        raise RowError(record.problem)
    fields = record.fields
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise RowError(
            f'a document needs a "text" (and may have "_id" or "docid", and "title"), got '
            f"{show(fields)}"
        )
    title = fields.get("title") or ""
    if not isinstance(title, str):
        raise RowError(f'"title" must be a text, got {show(title)}')
    text = f"{title} {fields['text']}".strip()
    return Document(as_text(text, "text") if text else "", _id(fields))


def _id(fields: dict[str, Any]) -> str | None:
    name = next((name for name in _IDS if fields.get(name) is not None), None)
    return None if name is None else str(fields[name])
