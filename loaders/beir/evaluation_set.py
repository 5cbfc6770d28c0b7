"""Read an evaluation set in the BEIR layout: corpus, queries and relevance judgements."""

import logging
from collections import Counter
from collections.abc import Container, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from loaders.beir.files import QRELS, qrels_files, text_files
from loaders.beir.problems import Problems, listed
from loaders.beir.qrels import Qrels, read_qrels
from loaders.beir.texts import TextKind, Texts, Watch, read_texts

logger = logging.getLogger(__name__)


class BeirSet(NamedTuple):
    """Documents and queries by id, and the judgements of each split."""

    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, Qrels]


def read_set(
    folder: Path,
    splits: Sequence[str] | None = None,
    *,
    allow_unknown: bool = False,
    for_training: bool = False,
    watch: Watch = lambda records, _: records,
) -> BeirSet:
    """Read a folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

    Each may be packed (``.gz``), or be Parquet as on the Hub. For their content see ``read_texts``
    and ``read_qrels``.

    Args:
        folder: Holds the files.
        splits: Whose judgements to read; None: all.
        allow_unknown: Skip judgements of queries or documents that do not exist, with a warning.
        for_training: Keep only judged documents, which must have a text.
        watch: Wraps the records of a file, for a progress bar.

    Raises:
        ValueError: A missing or empty file, an invalid line, a repeated id, a judged query without
            text, or a judgement of a query or document that does not exist. It lists all problems
            of the set, with file and line.
    """
    problems = Problems()
    files = _chosen(folder, splits, problems)
    qrels = {split: read_qrels(paths, problems) for split, paths in files.items()}
    asked = set(chain.from_iterable(qrels.values()))
    judged = {document for of in qrels.values() for ids in of.values() for document in ids}
    if for_training:
        documents = _texts(folder, "document", problems, watch, judged, judged)
    else:
        documents = _texts(folder, "document", problems, watch)
    queries = _texts(folder, "query", problems, watch, needs_text=asked)
    for split, paths in files.items():
        qrels[split] = _known(paths[0], qrels[split], queries, documents, problems, allow_unknown)
    problems.check()
    return BeirSet(documents.texts, queries.texts, qrels)


def read_corpus(path: Path) -> dict[str, str]:
    """Read the documents of a file such as ``corpus.jsonl``, or of the one in a folder, by id.

    Raises:
        ValueError: As for ``read_set``.
    """
    problems = Problems()
    if path.is_dir():
        documents = _texts(path, "document", problems)
    else:
        documents = read_texts([path], "document", problems)
    problems.check()
    return documents.texts


def find_splits(folder: Path) -> list[str]:
    """The splits for which a folder has judgements.

    Raises:
        ValueError: There are none.
    """
    splits = list(qrels_files(folder))
    if not splits:
        raise ValueError(_no_qrels(folder))
    return splits


def _chosen(
    folder: Path, splits: Sequence[str] | None, problems: Problems
) -> dict[str, list[Path]]:
    """The files of judgements to read, by split."""
    found = qrels_files(folder)
    if not found:
        problems.add(_no_qrels(folder))
        return {}
    for split in splits or ():
        if split not in found:
            problems.add(
                f"{folder / 'qrels' / split}.tsv does not exist; the splits of this set are "
                f"{', '.join(found)}: give one of them (split)"
            )
    return {split: found[split] for split in splits or found if split in found}


def _no_qrels(folder: Path) -> str:
    return (
        f"{folder} has no judgements: a BEIR folder has corpus.jsonl, queries.jsonl and "
        f"qrels/<split>.tsv (or {', '.join(QRELS[1:])})"
    )


def _texts(
    folder: Path,
    kind: TextKind,
    problems: Problems,
    watch: Watch = lambda records, _: records,
    wanted: Container[str] | None = None,
    needs_text: Container[str] = (),
) -> Texts:
    name = "corpus" if kind == "document" else "queries"
    files = text_files(folder, name)
    if not files:
        problems.add(f"{folder} has no {name}.jsonl (or {name}.jsonl.gz); is it a BEIR folder?")
        return Texts({}, complete=False)
    return read_texts(files, kind, problems, wanted=wanted, needs_text=needs_text, watch=watch)


def _known(
    path: Path,
    qrels: Qrels,
    queries: Texts,
    documents: Texts,
    problems: Problems,
    allow_unknown: bool,
) -> Qrels:
    """The judgements whose queries and documents exist, as far as all of these could be read."""
    no_query: Counter[str] = Counter()
    no_document: Counter[str] = Counter()
    known: Qrels = {}
    for query, judged in qrels.items():
        if queries.complete and query not in queries.texts:
            no_query[query] = len(judged)
            continue
        for document, relevance in judged.items():
            if documents.complete and document not in documents.texts:
                no_document[document] += 1
            else:
                known.setdefault(query, {})[document] = relevance
    said = "; ".join(
        f"{path}: {counts.total()} judgements name {len(counts)} {kind} that {file} does not "
        f"have: {listed(counts)}"
        for kind, file, counts in (
            ("queries", "queries.jsonl", no_query),
            ("documents", "corpus.jsonl", no_document),
        )
        if counts
    )
    if said and not allow_unknown:
        problems.add(f"{said}; repair the ids, or leave these out (allow_unknown)")
        return qrels
    if said:
        logger.warning("%s; they are left out", said)
        if not known:
            problems.add(f"{path}: none of its judgements refers to a known query and document")
    return known
