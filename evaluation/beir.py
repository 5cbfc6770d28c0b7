"""Read an evaluation set in the BEIR layout: documents, queries, and who answers whom."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetrievalData:
    """Documents and queries by id, and for each query the relevance of its judged documents."""

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

    def sample(self, count: int | None) -> Self:
        """Return the set with ``count`` of its queries, evenly spread; None or too many: all."""
        if count is None or count >= len(self.queries):
            return self
        ids = list(self.queries)
        chosen = [ids[at] for at in np.linspace(0, len(ids) - 1, count).round().astype(int)]
        return replace(
            self,
            queries={query: self.queries[query] for query in chosen},
            qrels={query: self.qrels[query] for query in chosen},
        )


def read_beir(folder: str | Path, split: str = "test") -> RetrievalData:
    """Read ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv`` of a folder.

    A document is its title and its text, with a space between. Only queries with judgements in
    the split are kept.

    Raises:
        ValueError: A missing file, a line that is not what it should be, a repeated id, or a
            judgement of a query or document that does not exist. It names file and line.
    """
    folder = Path(folder)
    documents = _read_texts(folder / "corpus.jsonl")
    queries = _read_texts(folder / "queries.jsonl")
    qrels = _read_qrels(folder / "qrels" / f"{split}.tsv", queries, documents)
    logger.info(
        "%s: %d documents; %d of %d queries are used (split %r)",
        folder, len(documents), len(qrels), len(queries), split,
    )  # fmt: skip
    return RetrievalData(documents, {query: queries[query] for query in qrels}, qrels)


def _read_texts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for where, line in _lines(path):
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not a JSON object ({error.msg})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected an object, got {type(record).__name__}")
        for field in ("_id", "text"):
            if not isinstance(record.get(field), str):
                found = record.get(field)
                raise ValueError(f"{where}: {field!r} must be a string, got {found!r}")
        if record["_id"] in texts:
            raise ValueError(f"{where}: the id {record['_id']!r} is repeated; ids must be unique")
        texts[record["_id"]] = f"{record.get('title') or ''} {record['text']}".strip()
    if not texts:
        raise ValueError(f"{path} is empty")
    return texts


def _read_qrels(
    path: Path, queries: dict[str, str], documents: dict[str, str]
) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for where, line in _lines(path):
        cells = line.split("\t")
        if cells == ["query-id", "corpus-id", "score"]:
            continue
        if len(cells) != 3:
            raise ValueError(f"{where}: expected query-id, corpus-id and score, got {line!r}")
        query, document, score = cells
        if query not in queries:
            raise ValueError(f"{where}: the query-id {query!r} is not in queries.jsonl")
        if document not in documents:
            raise ValueError(f"{where}: the corpus-id {document!r} is not in corpus.jsonl")
        try:
            qrels.setdefault(query, {})[document] = int(score)
        except ValueError:
            raise ValueError(f"{where}: the score must be an integer, got {score!r}") from None
    if not qrels:
        raise ValueError(f"{path} has no judgements")
    return qrels


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (``file:line``, line) for every line that is not blank."""
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist; an evaluation set is a folder with corpus.jsonl, "
            "queries.jsonl and qrels/<split>.tsv"
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise ValueError(f"{path}:{number}: not UTF-8; convert the file first") from None
            if text.strip():
                yield f"{path}:{number}", text
