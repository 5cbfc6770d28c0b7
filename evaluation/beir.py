"""Read an evaluation set in the BEIR layout: documents, queries, and who answers whom."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

from evaluation.data import RetrievalData
from evaluation.lines import read_lines
from evaluation.mistakes import Mistakes, listed
from evaluation.qrels import Unknown, read_qrels

logger = logging.getLogger(__name__)


def read_beir(
    folder: str | Path, split: str = "test", *, allow_unknown: bool = False
) -> RetrievalData:
    """Read ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv`` of a folder.

    A document is its title and its text, with a space between. MLDR's ``docid`` may stand for
    ``_id``. Only queries with judgements in the split are kept.

    Args:
        folder: Where the files are.
        split: Which judgements.
        allow_unknown: Leave out judgements of queries or documents that do not exist, with a
            warning.

    Raises:
        ValueError: A missing or empty file, a line that is not what it should be, a repeated id,
            a query without text, or a judgement of a query or document that does not exist. It
            names everything that is wrong with the set, with file and line.
    """
    folder = Path(folder)
    mistakes = Mistakes()
    documents = _read_texts(folder / "corpus.jsonl", mistakes)
    queries = _read_texts(folder / "queries.jsonl", mistakes)
    empty = [query for query, text in queries.texts.items() if not text.strip()]
    if empty:
        mistakes.add(f"{folder / 'queries.jsonl'}: {len(empty)} queries are empty: {listed(empty)}")
    qrels = _read_judgements(
        folder / "qrels" / f"{split}.tsv", queries, documents, mistakes, allow_unknown
    )
    mistakes.check()
    logger.info(
        "%s: %d documents; %d of %d queries are used (split %r)",
        folder, len(documents.texts), len(qrels), len(queries.texts), split,
    )  # fmt: skip
    return RetrievalData(documents.texts, {query: queries.texts[query] for query in qrels}, qrels)


def read_corpus(path: str | Path) -> dict[str, str]:
    """Read the documents of a ``corpus.jsonl``, or of the one in a folder, by id.

    Raises:
        ValueError: As for ``read_beir``.
    """
    path = Path(path)
    mistakes = Mistakes()
    documents = _read_texts(path / "corpus.jsonl" if path.is_dir() else path, mistakes)
    mistakes.check()
    return documents.texts


class _Texts(NamedTuple):
    texts: dict[str, str]  # by id
    complete: bool  # whether the id of every line could be read


def _read_texts(path: Path, mistakes: Mistakes) -> _Texts:
    texts: dict[str, str] = {}
    repeated: dict[str, None] = {}
    before, unread = len(mistakes.others), 0
    for where, line in read_lines(path, mistakes):
        identity = None
        text = "not read"  # stands for a text that is wrong, so that its id is known
        try:
            record = _parse(line)
            identity = _string(record, "docid" if "docid" in record else "_id")
            title = _string(record, "title") if record.get("title") is not None else ""
            text = f"{title} {_string(record, 'text')}".strip()
        except ValueError as error:
            mistakes.add_line(f"{where}: {error}")
        if identity is None:
            unread += 1
            continue
        if identity in texts:
            repeated[identity] = None
        texts[identity] = text
    complete = not unread and len(mistakes.others) == before
    if complete and not texts:
        mistakes.add(f"{path} is empty")
    if repeated:
        mistakes.add(
            f"{path}: {len(repeated)} ids are repeated, and ids must be unique: {listed(repeated)}"
        )
    return _Texts(texts, complete and bool(texts))


def _parse(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not a JSON object ({error.msg})") from None
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {type(record).__name__}")
    return record


def _string(record: dict[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise ValueError(f"{field!r} must be a string, got {value!r}")
    return value


def _read_judgements(
    path: Path, queries: _Texts, documents: _Texts, mistakes: Mistakes, allow_unknown: bool
) -> dict[str, dict[str, float]]:
    """The judgements of queries and documents that there are."""
    before = len(mistakes)
    qrels = read_qrels(path, mistakes)
    unknown = Unknown(
        qrels,
        queries.texts if queries.complete else None,
        documents.texts if documents.complete else None,
    )
    said = unknown.sentences(path)
    if said and allow_unknown:
        logger.warning("%s; they are left out", "; ".join(said))
        qrels = unknown.rest
    elif said:
        mistakes.add(f"{'; '.join(said)}; mend the ids, or allow_unknown to leave them out")
    if not qrels and len(mistakes) == before:
        mistakes.add(f"{path} has no judgements" + (" of what there is" if said else ""))
    return qrels
