"""Pick a few queries with their mined negatives, to be read by people."""

from typing import Any

import numpy as np

from mining.blocks import Blocks
from mining.data.corpus import Corpus
from mining.data.queries import Queries

_NEGATIVES = 4  # of an example


def find_examples(
    queries: Queries, corpus: Corpus, blocks: Blocks, count: int
) -> list[dict[str, Any]]:
    """Queries spread evenly over those that got negatives.

    Returns:
        For each ``query``, a ``positive``, the lowest ``score`` of a positive, and ``negatives``
        with ``text``, ``rank``, ``score`` and whether they are ``hard``.
    """
    mined = np.flatnonzero([bool(one.negatives) for one in blocks])
    chosen = mined[np.linspace(0, len(mined) - 1, min(count, len(mined))).astype(int)]
    return [_example(queries, corpus, blocks, query) for query in chosen.tolist()]


def _example(queries: Queries, corpus: Corpus, blocks: Blocks, query: int) -> dict[str, Any]:
    one = blocks[query]
    # Some of both kinds: the first, and the last.
    shown = sorted({*range(_NEGATIVES - 1), len(one.negatives) - 1} & {*range(len(one.negatives))})
    texts = corpus.at([queries.positives(query)[0], *(one.negatives[at].place for at in shown)])
    return {
        "query": queries.texts(query, query + 1)[0],
        "positive": texts[0],
        "score": one.positive,
        "negatives": [
            {
                "text": text,
                "rank": one.negatives[at].rank,
                "score": one.negatives[at].score,
                "hard": at < one.hard,
            }
            for at, text in zip(shown, texts[1:], strict=True)
        ],
    }
