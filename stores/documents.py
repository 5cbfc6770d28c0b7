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
from loaders.formats.folders import everything_in
from loaders.formats.records import data_suffix
from loaders.parsing.fields import RowError, check_characters, show
from stores.store import CORPUS, Document

# Shapes: N documents.

LONGEST_ID = 512  # characters: what an index of PostgreSQL holds
DEEPEST = 100  # levels of metadata; what writes JSON ends at some 250
MOST = 2**63  # JSON's numbers from there on are read otherwise by every program


def corpus_files(names: Sequence[str]) -> list[Path]:
    """The files of a corpus, given by files and folders.

    Of a folder: ``corpus.jsonl``, or all files of known endings, those of its folders too.

    Raises:
        ValueError: One of them holds none, or queries.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name).expanduser()
        files = [path]
        if path.is_dir():
            files = text_files(path, "corpus") or _data_files(path)
        if not files:
            raise ValueError(
                f"corpus: {path} has no corpus.jsonl, and no other {', '.join(FORMATS)}"
            )
        found += files
    return found


def _data_files(folder: Path) -> list[Path]:
    found = []
    for path in sorted(everything_in(folder)):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts):
            continue
        if path.is_file() and data_suffix(path) in FORMATS:
            if any(part.split(".")[0] == "queries" for part in parts):
                raise ValueError(
                    f"corpus: {path} holds queries, by its name, and {folder} has no corpus.jsonl "
                    "to tell what its documents are; name their files"
                )
            found.append(path)
    return found


def read_documents(files: Sequence[Path], source: str = CORPUS) -> Iterator[Document]:
    """Yield the documents of files whose records ``check_documents`` has found to be right."""
    for _, document in _read(files, source, Problems()):
        yield document


def _read(files: Sequence[Path], source: str, problems: Problems) -> Iterator[tuple[str, Document]]:
    """Yield the documents of all records that are right, with their lines; note the others."""
    for path in files:
        for record in read_records(path):
            place = f"{path}:{record.line}"
            try:
                yield place, document_of(fields_of(record), source)
            except RowError as error:
                problems.add_line(f"{place}: {error}")


def check_documents(files: Sequence[Path]) -> NDArray[np.uint64]:
    """Read all documents; return a digest of each id [N, 2].

    Raises:
        ValueError: There are malformed records or repeated ids; all are named, with their lines.
    """
    problems = Problems()
    keys: list[NDArray[np.uint64]] = []
    for path in files:
        keys.append(text_keys([each.id for _, each in _read([path], CORPUS, problems)]))
    joined = np.concatenate(keys) if keys else np.empty((0, 2), np.uint64)
    repeated = set(np.flatnonzero(KeyTable(joined).find(joined) != np.arange(len(joined))).tolist())
    if repeated:
        again = [
            (place, each)
            for at, (place, each) in enumerate(_read(files, CORPUS, Problems()))
            if at in repeated
        ]
        names = [each.id for _, each in again if each.id != _id_of_text(each.text)]
        places = [place for place, each in again if each.id == _id_of_text(each.text)]
        where = files[0] if len(files) == 1 else files[0].parent
        if names:
            problems.add(
                f"{where}: {len(names)} ids are repeated, and ids must be unique: {listed(names)}"
            )
        if places:
            problems.add(
                f"{where}: {len(places)} documents without an id have the text of an earlier one, "
                f"and are known by it: give them ids, or leave them out: {listed(places)}"
            )
    problems.check()
    if not len(joined):
        raise ValueError(f"corpus: there is no document in {', '.join(map(str, files))}")
    return joined


def document_of(fields: Mapping[str, Any], source: str = CORPUS) -> Document:
    """A record as a document; without an id it gets a digest of its text.

    What is neither its id nor its text becomes its metadata, and so do the fields of an object
    ``metadata``.

    Raises:
        RowError: It has no text, two ids, or a field that cannot be stored.
    """
    text = find_text(fields, "document")
    if not text:
        raise RowError("the document has no text")
    identity = find_id(fields, "document")
    ids = [name for name in IDS["document"] if fields.get(name) not in (None, "")]
    if len({str(fields[name]) for name in ids}) > 1:
        raise RowError(f"{' and '.join(ids)} are both read as its id, and differ; rename one")
    if identity is None:
        identity = _id_of_text(text)
    if len(identity) > LONGEST_ID:
        raise RowError(f'"{ids[0]}" has {len(identity)} characters, more than {LONGEST_ID}')
    used = {*IDS["document"], text_name(fields, "document")}
    others = {name: value for name, value in fields.items() if name not in used}
    if isinstance(others.get("metadata"), dict):  # as documents are given back
        own = others.pop("metadata")
        if twice := own.keys() & others.keys():
            raise RowError(f'"{min(twice)}" is both in "metadata" and beside it; leave one out')
        others |= own
    metadata = {_named(name, "a name"): _stored(value, name) for name, value in others.items()}
    return Document(identity, text, metadata, source)


def _id_of_text(text: str) -> str:
    return text_keys([text]).tobytes().hex()


def _named(name: str, where: str) -> str:
    """The name of a value, which a filter can ask for."""
    if "." in name:
        raise RowError(
            f'"{name}": a dot leads into an object in filters; rename it, or write an object '
            f"{show({name.split('.')[0]: {name.partition('.')[2]: '...'}})}"
        )
    return check_characters(name, where)


def _stored(value: Any, name: str, depth: int = 1) -> Any:
    """A value of metadata as it comes back, which is so deep in the field of this name."""
    if isinstance(value, str):
        return check_characters(value, name)
    if isinstance(value, dict | list) and depth > DEEPEST:
        raise RowError(f'"{name}" is nested too deeply; {DEEPEST} levels are kept')
    if isinstance(value, dict):
        return {_named(key, name): _stored(each, name, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_stored(each, name, depth + 1) for each in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if not isinstance(value, int | float | None):
        raise RowError(f'"{name}": a {type(value).__name__} cannot be stored; write it as a text')
    if value is not None and not abs(value) < MOST:  # NaN too
        raise RowError(f'"{name}": {show(value)} cannot be stored; numbers end at 2^63')
    return value
