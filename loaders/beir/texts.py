"""Read the documents and queries of an evaluation set in the BEIR layout."""

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from loaders.beir.problems import Problems, listed
from loaders.formats.records import Record, data_suffix, read_file
from loaders.parsing.fields import RowError, check_characters, show

logger = logging.getLogger(__name__)

TextKind = Literal["document", "query"]
Watch = Callable[[Iterable[Record], str], Iterable[Record]]

# Names of a record's id and text; the first one with a value counts.
IDS: dict[TextKind, tuple[str, ...]] = {
    "document": ("_id", "docid", "doc_id", "doc-id", "corpus-id", "corpus_id", "docno", "pid",
                 "id"),
    "query": ("_id", "qid", "query_id", "query-id", "queryid", "id"),
}  # fmt: skip
TEXTS: dict[TextKind, tuple[str, ...]] = {
    "document": ("text", "contents", "content", "passage"),
    "query": ("text", "query", "question"),
}
FORMATS = (".json", ".jsonl", ".ndjson", ".parquet")


class Texts(NamedTuple):
    """Texts by id, and whether all ids could be read.

    Attributes:
        texts: The wanted texts by id.
        complete: Whether the id of every line could be read.
    """

    texts: dict[str, str]
    complete: bool


def read_texts(
    files: Sequence[Path],
    kind: TextKind,
    problems: Problems,
    *,
    wanted: Container[str] | None = None,
    needs_text: Container[str] = (),
    watch: Watch = lambda records, _: records,
) -> Texts:
    """Read documents or queries.

    A document is its title and text, joined by a space; a query is its text only, as in BEIR.

    Args:
        files: JSON Lines, a JSON array or Parquet, packed or not.
        kind: What they hold.
        problems: Collects them.
        wanted: Ids to keep; None: all.
        needs_text: Ids whose text must not be empty.
        watch: Wraps the records of a file, for a progress bar.
    """
    texts: dict[str, str] = {}
    repeated: dict[str, None] = {}
    complete = True
    count = empty = titles = 0
    for path in files:
        try:
            for record in watch(read_records(path), str(path)):
                count += 1
                identity, text, problem = _id_and_text(record, kind, needs_text)
                if problem:
                    problems.add_line(f"{path}:{record.line}: {problem}")
                else:
                    empty += not text
                    titles += kind == "query" and bool(record.fields.get("title"))
                if identity is None:
                    complete = False
                elif wanted is None or identity in wanted:
                    if identity in texts:
                        repeated[identity] = None
                    texts[identity] = text
        except ValueError as error:
            problems.add(str(error))
            complete = False
    name = files[0] if len(files) == 1 else files[0].parent
    if repeated:
        problems.add(
            f"{name}: {len(repeated)} ids are repeated, and ids must be unique: {listed(repeated)}"
        )
    if complete and not count:
        problems.add(f"{name} is empty")
    if empty:
        logger.info("%s: %d of %d texts are empty", name, empty, count)
    if titles:
        logger.warning("%s: %d queries have a title, which is not read, as in BEIR", name, titles)
    return Texts(texts, complete and count > 0)


def _id_and_text(
    record: Record, kind: TextKind, needs_text: Container[str]
) -> tuple[str | None, str, str]:
    """The id and the text of a record, as far as they can be read, and what is wrong with it."""
    identity, text = None, ""
    try:
        fields = fields_of(record)
        identity = find_id(fields, kind)
        if identity is None:
            raise RowError(f"missing id ({', '.join(IDS[kind])})")
        text = find_text(fields, kind)
        if not text and identity in needs_text:
            raise RowError(f"{show(identity)} is judged and has no text")
    except RowError as error:
        return identity, text, str(error)
    return identity, text, ""


def read_records(path: Path) -> Iterable[Record]:
    """The records of a file of texts.

    Raises:
        ValueError: The file is not there, has another format, or cannot be read (on).
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    if data_suffix(path) not in FORMATS:
        known = ", ".join(FORMATS)
        raise ValueError(f"{path}: documents and queries are read from {known}, packed or not")
    yield from read_file(path)


def fields_of(record: Record) -> Mapping[str, Any]:
    """The object of a record.

    Raises:
        RowError: There is none.
    """
    if record.problem is not None:
        raise RowError(record.problem)
    if not isinstance(record.fields, dict):
        raise RowError(f"expected an object with _id and text, got {show(record.fields)}")
    return record.fields


def find_id(fields: Mapping[str, Any], kind: TextKind) -> str | None:
    """The id; None if there is none. Whole numbers become texts, as in the judgements.

    Raises:
        RowError: It is of another type, blank, or has characters that no file can hold.
    """
    name = next((name for name in IDS[kind] if fields.get(name) not in (None, "")), None)
    return None if name is None else as_id(fields[name], name)


def as_id(value: object, name: str) -> str:
    """An id, stripped of white space."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RowError(f'"{name}" must be a text or a whole number, got {show(value)}')
    if not value.strip():
        raise RowError(f'"{name}" is empty')
    return check_characters(value.strip(), name)


def find_text(fields: Mapping[str, Any], kind: TextKind) -> str:
    """The text, of a document with its title before it; null counts as empty.

    Raises:
        RowError: It is missing, not a text, or has characters that no tokenizer accepts.
    """
    name = text_name(fields, kind)
    if name is None and not (kind == "document" and isinstance(fields.get("title"), str)):
        raise RowError(f'missing field "text" (also read from {", ".join(TEXTS[kind][1:])})')
    parts = [_string(fields, "title")] if kind == "document" else []
    parts += [_string(fields, name)] if name else []
    return " ".join(parts).strip()


def text_name(fields: Mapping[str, Any], kind: TextKind) -> str | None:
    """The field that is read as the text; None if there is none."""
    given = [name for name in TEXTS[kind] if name in fields]
    return next((name for name in given if fields[name] is not None), given[0] if given else None)


def _string(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError(f'"{name}" must be a text, got {show(value)}')
    return check_characters(value, name)
