"""Read documents and their ids from corpora and training files."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from loaders import ReadOptions
from loaders.beir.files import text_files
from loaders.beir.texts import fields_of, find_id, find_text
from loaders.formats.sources import Source, find_sources
from loaders.parsing.columns import Columns
from loaders.parsing.fields import RowError, passage_text
from loaders.parsing.row_stream import LocatedRow, RowStream
from loaders.shapes.conversions import judged_documents


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
    fields = columns.with_mapped(located.record.fields)
    names = [columns.find(fields, field) for field in ("pos", "pos_doc", "doc", "hits")]
    for name in [*filter(None, names), *columns.negatives(fields)]:
        items = fields[name] if isinstance(fields[name], list) else [fields[name]]
        for item in items:
            if not isinstance(item, dict):
                continue
            try:
                identifier = find_id(item, "document")
            except RowError as error:
                raise ValueError(f"{located.file}:{located.record.line}: {error}") from None
            if identifier is not None:
                yield passage_text(item, name)[0], identifier


def corpus_documents(names: Sequence[str], options: ReadOptions) -> Iterator[Document]:
    """Yield the documents of corpora (see ``loaders.beir.texts``) or training files.

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
                fields = fields_of(record)
                document = Document(find_text(fields, "document"), find_id(fields, "document"))
            except RowError as error:
                raise ValueError(f"{source.name}:{record.line}: {error}") from None
            yield document


def _as_rows(fields: dict[str, Any], options: ReadOptions) -> ReadOptions | None:
    """Return how a file with such a record is read; None if it is no training row."""
    for columns in (options.columns, None):
        known = Columns(columns)
        if known.find(known.with_mapped(fields), "query"):
            return replace(options, columns=columns, split=None)
    return None


def corpus_sources(names: Sequence[str]) -> list[Source]:
    """Return the files that ``corpus_documents`` reads; none for no names."""
    files = []
    for name in names:
        files += [str(file) for file in text_files(Path(name).expanduser(), "corpus")] or [name]
    return find_sources(files, evaluates=True) if files else []
