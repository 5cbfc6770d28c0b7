"""Judged documents of an evaluation set in the BEIR layout, as training groups."""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from loaders.encodings import not_utf8, open_text
from loaders.fields import RowError, as_number, check_characters, show
from loaders.records import read_file

Qrels = dict[str, dict[str, float]]

_HEADER = ["query-id", "corpus-id", "score"]


def find_splits(folder: Path) -> list[str]:
    """The names of the files in ``qrels/``.

    Raises:
        ValueError: If there is none, or another part of the set is missing.
    """
    splits = sorted(path.stem for path in (folder / "qrels").glob("*.tsv"))
    if not splits:
        raise ValueError(
            f"{folder}/qrels holds no .tsv file; a BEIR folder has corpus.jsonl, queries.jsonl "
            "and qrels/<split>.tsv"
        )
    for name in ("corpus", "queries"):
        text_file(folder, name)
    return splits


def text_file(folder: Path, name: str) -> Path:
    """``corpus.jsonl`` or ``queries.jsonl``, which may be packed."""
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.is_file():
            return path
    raise ValueError(f"{folder} holds no {name}.jsonl (or {name}.jsonl.gz); is it a BEIR folder?")


def read_qrels(path: Path) -> Qrels:
    """Query id -> document id -> grade.

    Raises:
        ValueError: For the first bad line: file, line, reason.
    """
    qrels: Qrels = {}
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with open_text(path, newline="\n") as stream:
            for number, line in enumerate(stream, start=1):
                cells = [cell.strip() for cell in line.rstrip("\r\n").split("\t")]
                if not any(cells) or cells == _HEADER:
                    continue
                try:
                    _add(qrels, cells)
                except RowError as error:
                    raise ValueError(f"{path}:{number}: {error}") from None
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    if not qrels:
        raise ValueError(f"{path} has no judgements")
    return qrels


def _add(qrels: Qrels, cells: list[str]) -> None:
    if len(cells) != 3:
        raise RowError(
            f"{len(cells)} cells, where there must be query-id, corpus-id and score, with tabs "
            "between"
        )
    query, document, cell = cells
    grade = as_number(cell, "score", from_text=True)
    if grade < 0:
        raise RowError(f'"score" must be 0 or more, got {grade:g}')
    if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
        raise RowError(f"the document {show(document)} has two grades for the query {show(query)}")


def read_texts(path: Path, wanted: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of the wanted documents or queries; a title stands before its text.

    Raises:
        ValueError: For a bad line, or a wanted id that stands there twice or has no text.
    """
    seen: set[str] = set()
    for record in read_file(path):
        try:
            if record.problem is not None:
                raise RowError(record.problem)
            identifier, text = _text(record.fields)
            if identifier in wanted:
                if identifier in seen:
                    raise RowError(f"the id {show(identifier)} is repeated; ids must be unique")
                if not text:
                    raise RowError(f"{show(identifier)} is judged and has no text")
                seen.add(identifier)
                yield identifier, check_characters(text, "text")
        except RowError as error:
            raise ValueError(f"{path}:{record.line}: {error}") from None


def _text(fields: object) -> tuple[str, str]:
    if not isinstance(fields, dict):
        raise RowError(f"expected an object with _id and text, got {show(fields)}")
    for name in ("_id", "text"):
        if not isinstance(fields.get(name), str):
            raise RowError(f'"{name}" must be a text, got {show(fields.get(name))}')
    title = fields.get("title") or ""
    if not isinstance(title, str):
        raise RowError(f'"title" must be a text, got {show(title)}')
    return fields["_id"], f"{title} {fields['text']}".strip()


def group(
    query: str, judged: dict[str, float], texts: dict[str, str], threshold: float, highest: float
) -> dict[str, Any]:
    """The training group of a query.

    Args:
        query: Its text.
        judged: Document id -> grade.
        texts: Document id -> text.
        threshold: The least grade of a positive.
        highest: The highest grade of the set, by which grades are divided to give the scores, in
            [0, 1]; 0: without scores.
    """
    pos = [identifier for identifier, grade in judged.items() if grade >= threshold]
    neg = [identifier for identifier, grade in judged.items() if grade < threshold]
    record: dict[str, Any] = {
        "query": query,
        "pos": [texts[identifier] for identifier in pos],
        "neg": [texts[identifier] for identifier in neg],
    }
    if highest:
        record["pos_scores"] = [judged[identifier] / highest for identifier in pos]
        record["neg_scores"] = [judged[identifier] / highest for identifier in neg]
    return record
