"""Rerank documents: the best of a first stage, or each query's candidates."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from torch import Tensor

from encoders.backbone import Encoder
from encoders.kinds import kind_of
from evaluation.data.sets import RetrievalData
from evaluation.metrics.ranking import Run, order
from evaluation.search.distributed import InferenceSettings, run_distributed
from loaders.beir.problems import listed

# Shapes: P pairs of query and document.

DOCUMENTS_AT_ONCE = 2**10  # of a model that reads each text alone


def rerank(
    reranker: Encoder,
    data: RetrievalData,
    run: Run | None,
    top_k: int,
    inference: InferenceSettings = InferenceSettings(),
) -> dict[str, dict[str, float]]:
    """Return the documents of each query in the reranker's order, with scores, best first.

    Scores are logits: the sigmoid would make ties of the surest documents. Documents of ``run``
    beyond ``top_k`` keep their order below all others, with made-up scores, each 1 lower than the
    one before. Equal scores: by falling document id. Under ``torch.distributed`` the processes
    share the work, and each returns the whole result.

    Args:
        reranker: The model.
        data: The texts.
        run: What a first stage has found; None: ``data.candidates``, all of which are scored.
        top_k: How many documents of ``run`` are scored for each query, its best.
        inference: Settings of inference.

    Raises:
        ValueError: There is nothing to rank, the run is not one of these data, or a score is not
            finite (query and document are named).
    """
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if run is not None:
        rankings = {query: order(scores) for query, scores in run.items()}
    elif data.candidates is not None:
        rankings = {query: list(dict.fromkeys(own)) for query, own in data.candidates.items()}
        top_k = max(map(len, rankings.values()), default=top_k)
    else:
        raise ValueError(
            "there is nothing to rerank: the data have no candidates, and no run of a first stage "
            "is given"
        )
    rankings = {
        query: [document for document in own if not data.is_identical(query, document)]
        for query, own in rankings.items()
    }
    pairs = [(query, document) for query, own in rankings.items() for document in own[:top_k]]
    scores = _score(reranker, data, pairs, inference)  # [P]
    scored: dict[str, dict[str, float]] = {query: {} for query in rankings}
    for (query, document), score in zip(pairs, scores.tolist(), strict=True):
        scored[query][document] = score
    return {query: _in_order(scored[query], own[top_k:]) for query, own in rankings.items()}


def _score(
    reranker: Encoder,
    data: RetrievalData,
    pairs: Sequence[tuple[str, str]],
    inference: InferenceSettings,
) -> Tensor:
    """The logits of pairs of ids: [P]."""
    _check_known(data, pairs)
    queries = data.prompted(reranker.find_prompt("query"))
    # Queries have theirs already: a row's own, or the model's.
    prompts = {"document": reranker.find_prompt("document")}

    def score(piece: list[int]) -> Tensor:
        return reranker.score_pairs(
            [queries[pairs[at][0]] for at in piece],
            [data.documents[pairs[at][1]] for at in piece],
            prompts=prompts,
            max_length=inference.max_length,
            query_max_length=inference.query_max_length,
            document_max_length=inference.document_max_length,
            tokens_per_batch=inference.tokens_per_batch,
            bf16=inference.bf16,
        )

    sizes = [len(queries[query]) + len(data.documents[document]) for query, document in pairs]
    pieces = None if kind_of(reranker).reads_pairs else by_document(pairs)
    scores = run_distributed(reranker, sizes, score, inference, inference.max_length, pieces=pieces)
    check_scores(scores, lambda at: "query {!r} with document {!r}".format(*pairs[at]))
    return scores


def by_document(pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The numbers of pairs in pieces, all of a document in one, so that it is read only once."""
    places: dict[str, list[int]] = {}
    for at, (_, document) in enumerate(pairs):
        places.setdefault(document, []).append(at)
    own = list(places.values())
    starts = range(0, len(own), DOCUMENTS_AT_ONCE)
    return [list(chain.from_iterable(own[at : at + DOCUMENTS_AT_ONCE])) for at in starts]


def check_scores(scores: Tensor, shown: Callable[[int], str]) -> None:
    """Refuse scores of pairs [P] of which one is not finite.

    Args:
        scores: A model's.
        shown: What an error calls a pair, by its number.

    Raises:
        ValueError: The model has diverged.
    """
    wrong = (~scores.isfinite()).nonzero()[:, 0].tolist()
    if wrong:
        raise ValueError(
            f"the model's scores of {len(wrong)} pairs are NaN or infinite (the first: "
            f"{shown(wrong[0])}): it has diverged"
        )


def _check_known(data: RetrievalData, pairs: Sequence[tuple[str, str]]) -> None:
    queries = {query: None for query, _ in pairs if query not in data.queries}
    documents = {document: None for _, document in pairs if document not in data.documents}
    for name, unknown in (("queries", queries), ("documents", documents)):
        if unknown:
            raise ValueError(
                f"{len(unknown)} {name} that are to be ranked do not exist in the data: "
                f"{listed(unknown)}; give a run and data of the same set"
            )


def _in_order(scored: Mapping[str, float], rest: Sequence[str]) -> dict[str, float]:
    """The scored documents, best first, then the others in their old order."""
    ranked = {document: scored[document] for document in order(scored)}
    lowest = min(ranked.values(), default=0.0)
    return ranked | {document: lowest - at for at, document in enumerate(rest, start=1)}
