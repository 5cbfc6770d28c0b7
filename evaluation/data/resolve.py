"""Open evaluation data by name: a BEIR folder, files in a training format, or a task of MTEB."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from encoders.kinds import KINDS, Kind
from evaluation.data.from_rows import pairs_from_rows, retrieval_from_groups
from evaluation.data.mteb_task import read_mteb
from evaluation.data.sets import PairData, RetrievalData
from loaders import DataFiles, ReadOptions
from loaders.beir import evaluation_set as beir
from loaders.beir.files import is_beir

logger = logging.getLogger(__name__)

MTEB = "mteb:"


def open_data(
    names: Sequence[str],
    kind: Kind,
    options: ReadOptions,
    *,
    split: str | None = None,
    corpus: str | None = None,
    allow_unknown: bool = False,
    as_groups: bool = False,
    keep_identical_ids: bool = False,
) -> RetrievalData | PairData:
    """Read evaluation data for a kind of model.

    Args:
        names: One folder in the BEIR layout, one ``mteb:TASK``, or files in any training format.
            Scored pairs are pairs to correlate; of groups and positive pairs an embedder searches
            all documents, and a reranker orders those of each query, or, where no query has both
            relevant and other ones, what a first stage finds in all documents.
        kind: The model's.
        options: How training files are read.
        split: BEIR and MTEB: which judgements, None: test; training files have that of ``options``.
        corpus: More documents to search beside those of rows (``corpus.jsonl`` or its folder).
        allow_unknown: Go on without judgements of unknown documents or queries.
        as_groups: Group scored pairs by query, and rank the documents of each.
        keep_identical_ids: Documents that are the query itself count as any others.

    Raises:
        ValueError: Several sets, a corpus that would not be searched, or data that cannot be read.
    """
    whole = next((name for name in names if _is_set(name)), None)
    if whole is not None and len(names) > 1:
        raise ValueError(
            f"{whole} is a complete evaluation set, and only one is measured at a time; give it "
            "alone, or list the sets in a file for --suite of scripts/evaluate.py"
        )
    data: RetrievalData | PairData
    if whole is None:
        data = _read_rows(names, kind, options, corpus, as_groups)
    elif whole.startswith(MTEB):
        data = read_mteb(whole.removeprefix(MTEB), split)
    else:
        folder = Path(whole).expanduser()
        data = read_beir(folder, split or "test", allow_unknown=allow_unknown)
    if corpus and (whole or isinstance(data, PairData) or data.candidates is not None):
        raise ValueError(
            f"corpus: {corpus} can only be added to training rows that are searched, and "
            f"{' '.join(names)} says itself which documents are searched or scored; leave it out"
        )
    if isinstance(data, PairData):
        return data
    if keep_identical_ids:
        return replace(data, identical_documents={})
    if data.identical_documents:
        logger.warning(_left_out(data))
    return data


def _is_set(name: str) -> bool:
    return name.startswith(MTEB) or is_beir(Path(name).expanduser())


def _read_rows(
    names: Sequence[str], kind: Kind, options: ReadOptions, corpus: str | None, as_groups: bool
) -> RetrievalData | PairData:
    files = DataFiles(names, options)
    if not as_groups and files.shape == "scored_pair":
        return pairs_from_rows(files.rows("scored_pair"))
    rows, threshold = files.rows("candidate_group"), options.positive_threshold
    if not KINDS[kind].retrieves:
        data = retrieval_from_groups(rows, None, threshold, candidates=True)
        # The order of documents that are equally relevant says nothing about a model.
        alike = sum(len(set(judged.values())) < 2 for judged in data.qrels.values())
        if alike < len(data.queries):
            if alike:
                logger.warning(
                    "%d queries have documents of one relevance only: any order of them is right",
                    alike,
                )
            return data
    return retrieval_from_groups(rows, read_corpus(corpus) if corpus else None, threshold)


def _left_out(data: RetrievalData) -> str:
    """The warning about documents that are the query itself."""
    own = data.identical_documents
    text = (
        f"{len(own)} queries are documents of the set too: each is left out of its own results, as "
        "BEIR does (ignore_identical_ids)"
    )
    relevant = sum(data.is_relevant(data.qrels[q].get(d, 0)) for q, d in own.items())
    if relevant:
        text += f"; {relevant} of them are judged relevant to themselves and count as not found"
    return f"{text}; --keep_identical_ids leaves them in"


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
        identical_documents={query: query for query in judged if query in documents},
        split=split,
    )


def read_corpus(path: str | Path) -> dict[str, str]:
    """Read the documents of a ``corpus.jsonl``, or of the one in a folder, by id.

    Raises:
        ValueError: As for ``read_beir``.
    """
    return beir.read_corpus(Path(path).expanduser())
