"""Read documents with their metadata from the files of a corpus."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.text_digest import KeyTable, text_keys
from loaders.beir.files import text_files
from loaders.beir.problems import Problems, listed
from loaders.beir.texts import (
    FORMATS,
    IDS,
    fields_of,
    find_id,
    find_text,
    read_records,
    text_name,
)
from loaders.formats.records import data_suffix
from loaders.parsing.fields import RowError, check_characters, show
from stores.store import CORPUS, Document

# Shapes: N documents.

LONGEST_ID = 512  # characters: what an index of PostgreSQL holds
MOST = 2**63  # JSON's numbers from there on are read otherwise by every program


def corpus_files(names: Sequence[str]) -> list[Path]:
    """The files of a corpus, given by files and folders (``corpus.jsonl``, or any such files).

    Raises:
        ValueError: One of them holds none.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        files = [path]
        if path.is_dir():
            shards = sorted(each for each in path.iterdir() if data_suffix(each) in FORMATS)
            files = text_files(path, "corpus") or shards
        if not files:
            raise ValueError(
                f"corpus: {path} has no corpus.jsonl, and no other {', '.join(FORMATS)}"
            )
        found += files
    return found


def read_documents(files: Sequence[Path], source: str = CORPUS) -> Iterator[Document]:
    """Yield the documents of files whose records ``check_documents`` has found to be right."""
    for path in files:
        for record in read_records(path):
            yield document_of(fields_of(record), source)


def check_documents(files: Sequence[Path]) -> NDArray[np.uint64]:
    """Read all documents; return a digest of each id [N, 2].

    Raises:
        ValueError: There are malformed records or repeated ids; all are named, with their lines.
    """
    problems = Problems()
    keys: list[NDArray[np.uint64]] = []
    for path in files:
        ids: list[str] = []
        for record in read_records(path):
            try:
                ids.append(document_of(fields_of(record)).id)
            except RowError as error:
                problems.add_line(f"{path}:{record.line}: {error}")
        keys.append(text_keys(ids))
    joined = np.concatenate(keys) if keys else np.empty((0, 2), np.uint64)
    repeated = set(np.flatnonzero(KeyTable(joined).find(joined) != np.arange(len(joined))).tolist())
    if repeated:
        names = [each.id for at, each in enumerate(_readable(files)) if at in repeated]
        where = files[0] if len(files) == 1 else files[0].parent
        problems.add(
            f"{where}: {len(repeated)} ids are repeated, and ids must be unique: {listed(names)}"
        )
    problems.check()
    if not len(joined):
        raise ValueError(f"corpus: there is no document in {', '.join(map(str, files))}")
    return joined


def _readable(files: Sequence[Path]) -> Iterator[Document]:
    for path in files:
        for record in read_records(path):
            try:
                yield document_of(fields_of(record))
            except RowError:
                continue


def document_of(fields: Mapping[str, Any], source: str = CORPUS) -> Document:
    """A record as a document; without an id it gets a digest of its text.

    What is neither its id nor its text becomes its metadata.

    Raises:
        RowError: It has no text, two ids, or a value that cannot be stored.
    """
    text = find_text(fields, "document")
    if not text:
        raise RowError("the document has no text")
    identity = find_id(fields, "document")
    ids = [name for name in IDS["document"] if fields.get(name) not in (None, "")]
    if len({str(fields[name]) for name in ids}) > 1:
        raise RowError(f"{' and '.join(ids)} are both read as its id, and differ; rename one")
    if identity is None:
        identity = text_keys([text]).tobytes().hex()
    if len(identity) > LONGEST_ID:
        raise RowError(f'"{ids[0]}" has {len(identity)} characters, more than {LONGEST_ID}')
    used = {*IDS["document"], text_name(fields, "document")}
    others = {name: value for name, value in fields.items() if name not in used}
    return Document(identity, text, _as_json(others), source)


def _as_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as they come back; dates become texts."""
    found = {}
    for name, value in metadata.items():
        try:
            found[check_characters(name, "a name")] = _stored(value, name)
        except RecursionError:
            raise RowError(f'"{name}" is nested too deeply') from None
    return found


def _stored(value: Any, name: str) -> Any:
    """A value of metadata, which is in the field of this name."""
    if isinstance(value, str):
        return check_characters(value, name)
    if isinstance(value, dict):
        return {check_characters(key, name): _stored(each, name) for key, each in value.items()}
    if isinstance(value, list):
        return [_stored(each, name) for each in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if not isinstance(value, int | float | None):
        raise RowError(f'"{name}": a {type(value).__name__} cannot be stored; write it as a text')
    if value is not None and not abs(value) < MOST:  # NaN too
        raise RowError(f'"{name}": {show(value)} cannot be stored; numbers end at 2^63')
    return value
