"""Rank all documents for all queries, exactly: no index, no approximation."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import functional as F

from encoders import Embedder
from evaluation.beir import RetrievalData

Rankings = Mapping[str, Sequence[str]]  # query id -> document ids, best first

# Shapes: Q queries, D documents, H width of a vector.
SCORES_AT_ONCE = 2**24  # 64 MiB of float32


def retrieve(
    embedder: Embedder,
    data: RetrievalData,
    k: int,
    *,
    bf16: bool = False,
    max_length: int | None = None,
    show_progress: bool = False,
) -> dict[str, list[str]]:
    """Return the k documents nearest to each query by cosine, best first.

    The embedder's own query and document prompts are used.
    """
    queries, documents = (
        F.normalize(
            embedder.encode(
                list(texts.values()),
                prompt_name=side,
                bf16=bf16,
                max_length=max_length,
                show_progress=show_progress,
            ),
            dim=-1,
        )
        for side, texts in (("query", data.queries), ("document", data.documents))
    )  # [Q, H], [D, H]
    ranked = search(queries, documents, list(data.documents), k)
    return dict(zip(data.queries, ranked, strict=True))


def search(queries: Tensor, documents: Tensor, ids: Sequence[str], k: int) -> list[list[str]]:
    """Return for each row of ``queries`` [Q, H] the ids of its k best ``documents`` [D, H].

    The score is the dot product. Equal scores are ordered by falling id, as ``trec_eval`` does,
    also where a tie reaches over the k-th place. Fewer than k documents: all of them.

    Raises:
        ValueError: A vector is not finite.
    """
    for name, vectors in (("query", queries), ("document", documents)):
        if not vectors.isfinite().all():
            raise ValueError(f"the model's {name} vectors have NaN or infinity: it has diverged")
    # With the columns by falling id, ties are won by the smaller column.
    columns = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
    documents = documents[columns]
    k = min(k, len(ids))
    rankings = []
    for block in queries.split(max(1, SCORES_AT_ONCE // len(ids))):
        scores = block @ documents.T  # [q, D]
        worst = scores.topk(k).values[:, -1:]  # [q, 1]
        for row, candidates in zip(scores, scores >= worst, strict=True):
            found = candidates.nonzero()[:, 0]  # at least k, by falling id
            best = row[found].sort(descending=True, stable=True).indices[:k]
            rankings.append([ids[columns[column]] for column in found[best].tolist()])
    return rankings
