"""A reranker whose pair scores are cached on disk, and computed by all processes of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray
from tqdm import tqdm

from common.prompts import with_prompt
from common.text_digest import KeyTable, pair_keys
from encoders.backbone import Encoder
from evaluation.search.reranking import check_scores
from mining.cache.vectors import VectorCache
from mining.search.encode import BLOCK, EncodingSettings

# Letters: P pairs.

Pair = tuple[str, str]

_SLICE = 256


@dataclass
class Teacher:
    """Scorer of (query, document) pairs, texts behind their prompts (see ``pair``).

    Args:
        cache: For this model and these settings, with a width of 1.
    """

    reranker: Encoder
    cache: VectorCache
    encoding: EncodingSettings

    def pair(self, query: str, prompt: str | None, document: str) -> Pair:
        """Build the reranker's input: the query behind its own prompt, or else the model's."""
        return (
            with_prompt(query, self.reranker.find_prompt("query"), prompt),
            with_prompt(document, self.reranker.find_prompt("document")),
        )

    def score(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Return the raw scores of distinct pairs [P], computing and caching missing ones.

        Raises:
            ValueError: A score is not finite.
        """
        keys = pair_keys(pairs)
        places = self.cache.find(keys)
        known, missing = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        scores = np.empty(len(pairs), dtype=np.float32)
        scores[known] = self.cache.take(places[known])[:, 0]
        if len(missing):
            scores[missing] = self._compute([pairs[int(at)] for at in missing])
            self.cache.append(keys[missing], scores[missing, None])
        return scores

    def _compute(self, pairs: list[Pair]) -> NDArray[np.float32]:
        found = self.reranker.score_pairs(
            [query for query, _ in pairs],
            [document for _, document in pairs],
            prompts={},  # they are part of the cache's key, and there already
            max_length=self.encoding.max_length,
            tokens_per_batch=self.encoding.tokens_per_batch,
            bf16=self.encoding.bf16,
        )
        check_scores(found, lambda at: ", ".join(repr(text[:40]) for text in pairs[at]))
        scores: NDArray[np.float32] = found.numpy()
        return scores


def score_all(teacher: Teacher, rows: Dataset, show_progress: bool) -> None:
    """Fill the teacher's cache with the scores of all (query, document) pairs of the rows.

    Collective: all processes of a run call it together. As with texts (``encode_all``), one process
    scores a block, and the order of the pairs alone decides where blocks are cut.

    Args:
        rows: Of the shape ``candidate_group``.
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
