"""Read an evaluation set in the BEIR layout."""

import logging
from pathlib import Path

from evaluation.data.sets import RetrievalData
from loaders.beir import evaluation_set as beir

logger = logging.getLogger(__name__)


def read_beir(
    folder: str | Path, split: str = "test", *, allow_unknown: bool = False
) -> RetrievalData:
    """Read a folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

    A document is its title and its text, with a space between. Only queries with judgements in the
    split are kept. A document with the id of a query is the query itself, as in BEIR.

    Args:
        folder: Where the files are; see ``loaders.beir.evaluation_set.read_set`` for their forms.
        split: Which judgements.
        allow_unknown: Leave out judgements of queries or documents that do not exist, with a
            warning.

    Raises:
        ValueError: The set is malformed; the message names file and line.
    """
    documents, queries, qrels = beir.read_set(Path(folder), [split], allow_unknown=allow_unknown)
    judged = qrels[split]
    logger.info(
        "%s: %d documents; %d of %d queries are used (split %r)",
        folder, len(documents), len(judged), len(queries), split,
    )  # fmt: skip
    return RetrievalData(
        documents,
        {query: queries[query] for query in judged},
        judged,
        own_documents={query: query for query in judged if query in documents},
    )


def read_corpus(path: str | Path) -> dict[str, str]:
    """Read the documents of a ``corpus.jsonl``, or of the one in a folder, by id.

    Raises:
        ValueError: As for ``read_beir``.
    """
    return beir.read_corpus(Path(path))
