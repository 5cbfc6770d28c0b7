"""Read documents with their metadata from the files of a corpus."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.text_digest import KeyTable, text_keys
from loaders.beir.files import text_files
from loaders.beir.problems import Problems, listed
from loaders.beir.texts import FORMATS, IDS, TEXTS, fields_of, find_id, find_text, read_records
from loaders.formats.records import data_suffix
from loaders.parsing.fields import RowError
from stores.store import CORPUS, Document

# Shapes: N documents.


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
        RowError: It has no text, or a value that cannot be stored.
    """
    text = find_text(fields, "document")
    if not text:
        raise RowError("the document has no text")
    identity = find_id(fields, "document")
    if identity is None:
        identity = text_keys([text]).tobytes().hex()
    known = {*IDS["document"], *TEXTS["document"]}
    others = {name: value for name, value in fields.items() if name not in known}
    for name, value in others.items():
        if "\\u0000" in json.dumps(value, default=str):
            raise RowError(f'"{name}" contains a NUL character')
    return Document(identity, text, _as_json(others), source)


def _as_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as they come back; dates become texts."""

    def as_text(value: object) -> str:
        if isinstance(value, datetime.date | datetime.time):
            return value.isoformat()
        raise RowError(f"a value of type {type(value).__name__} cannot be stored as metadata")

    try:
        found: dict[str, Any] = json.loads(json.dumps(metadata, allow_nan=False, default=as_text))
    except ValueError:
        raise RowError("NaN and infinity cannot be stored as metadata") from None
    return found
