"""Find what a model is to be measured on: a BEIR folder, training files, or a task of MTEB."""

from collections.abc import Sequence
from pathlib import Path

from encoders.kind import Kind
from evaluation.beir import read_beir, read_corpus
from evaluation.data import PairData, RetrievalData
from evaluation.from_rows import candidates_from_groups, pairs_from_rows, retrieval_from_groups
from evaluation.mteb_task import read_mteb
from loaders import ReadOptions, detect_shape, load_rows

MTEB = "mteb:"


def open_data(
    names: Sequence[str],
    kind: Kind,
    options: ReadOptions,
    *,
    split: str = "test",
    corpus: str | None = None,
    allow_unknown: bool = False,
    as_groups: bool = False,
) -> RetrievalData | PairData:
    """Read evaluation data for a kind of model.

    Args:
        names: One folder in the BEIR layout, one ``mteb:TASK``, or files in any training format.
            Scored pairs are pairs to correlate; of groups and positive pairs an embedder searches
            all documents, and a reranker orders those of each query.
        kind: The model's.
        options: How training files are read.
        split: BEIR and MTEB: which judgements; training files have that of ``options``.
        corpus: More documents to search (``corpus.jsonl`` or its folder).
        allow_unknown: Go on without judgements of unknown documents or queries.
        as_groups: Unite the scored pairs of a query, and rank its documents.
    """
    first = names[0]
    folder = Path(first)
    if first.startswith(MTEB):
        return read_mteb(first.removeprefix(MTEB), split)
    if len(names) == 1 and (folder / "corpus.jsonl").is_file():
        return read_beir(folder, split, allow_unknown=allow_unknown)
    files = list(names)
    if not as_groups and detect_shape(files, options) == "scored_pair":
        return pairs_from_rows(load_rows(files, "scored_pair", options))
    groups = load_rows(files, "candidate_group", options)
    if kind == "reranker":
        return candidates_from_groups(groups, options.positive_threshold)
    more = read_corpus(corpus) if corpus else None
    return retrieval_from_groups(groups, more, options.positive_threshold)
