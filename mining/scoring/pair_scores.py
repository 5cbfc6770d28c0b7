"""Score all pairs of some rows with a reranker, distributed over processes."""

from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from tqdm import tqdm

from mining.cache.text_digest import KeyTable, pair_keys
from mining.scoring.teacher import Pair, Teacher

# Letters: P pairs.

# As with texts (see ``mining.search.encode``): one process scores a block, and the order of the
# pairs alone decides where blocks are cut.
BLOCK = 1024
_SLICE = 256


def score_all(teacher: Teacher, rows: Dataset, show_progress: bool) -> None:
    """Fill the teacher's cache with the scores of all (query, document) pairs of the rows.

    All processes of a run call this together. What the cache has is not computed again.

    Args:
        teacher: The reranker.
        rows: Of the shape ``candidate_group``.
        show_progress: Show a progress bar.
    """
    state = PartialState()
    keys = np.concatenate([pair_keys(pairs) for pairs in _pairs(teacher, rows)])  # [P, 2]
    # Where each pair stands for the first time: those that repeat are scored there.
    first = KeyTable(keys).find(keys) == np.arange(len(keys))
    block_of = (np.cumsum(first) - 1) // BLOCK
    mine = first & (block_of % state.num_processes == state.process_index)
    pairs = chain.from_iterable(_pairs(teacher, rows))
    own = (
        (block, pair) for block, chosen, pair in zip(block_of, mine, pairs, strict=True) if chosen
    )
    with tqdm(total=int(mine.sum()), desc="scoring pairs", disable=not show_progress) as bar:
        for _, members in groupby(own, key=itemgetter(0)):
            block = [pair for _, pair in members]
            teacher.score(block)
            bar.update(len(block))
    state.wait_for_everyone()
    teacher.cache.refresh()


def _pairs(teacher: Teacher, rows: Dataset) -> Iterator[list[Pair]]:
    """Yield the pairs of the rows, texts behind their prompts, some rows at a time."""
    for batch in rows.iter(batch_size=_SLICE):
        yield [
            teacher.pair(query, prompt, document)
            for query, prompt, pos, neg in zip(
                batch["query"], batch["prompt"], batch["pos"], batch["neg"], strict=True
            )
            for document in pos + neg
        ]
