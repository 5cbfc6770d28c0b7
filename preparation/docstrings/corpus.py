"""Deduplicate docstring pairs, split them by topic, and mine hard negatives for them."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from common.bm25 import BM25, tokenize
from preparation.docstrings.pairs import DocstringPair
from preparation.docstrings.text import content_stems
from preparation.duplicates.near_duplicates import similar_pairs

Part = Literal["train", "dev", "heldout"]

# Two documents this alike are taken for one: packages copy docstrings from each other.
NEAR_DUPLICATE = 0.5
# Two queries with this share of common word stems may be answered by the same document.
_SAME_QUESTION = 0.5
_LEXICAL_DEPTH = 20  # BM25 hits that negatives are drawn from: not the very best only, for safety


def deduplicate(pairs: Sequence[DocstringPair], dropped: Counter[str]) -> list[DocstringPair]:
    """Drop pairs with a repeated name or query or a near-duplicate document.

    The first of each kind stays. Because it is done before the split, no text of a training
    module can come back, almost unchanged, in a held-out one.
    """
    kept: list[DocstringPair] = []
    names: set[str] = set()
    queries: set[str] = set()
    for pair in pairs:
        query = " ".join(tokenize(pair.query))
        if pair.name in names or query in queries:
            dropped["summary used before"] += 1
            continue
        names.add(pair.name)
        queries.add(query)
        kept.append(pair)
    repeated: set[int] = set()
    for later, earlier, _ in similar_pairs([pair.document for pair in kept], NEAR_DUPLICATE):
        if earlier not in repeated:
            repeated.add(later)
    dropped["document almost as one before"] += len(repeated)
    return [pair for place, pair in enumerate(kept) if place not in repeated]


def split_by_topic(
    pairs: Sequence[DocstringPair], heldout_size: int, dev_size: int, seed: int
) -> dict[Part, list[DocstringPair]]:
    """Assign whole topics to parts, so that no sub-module is in two of them.

    Every package gives its share of about ``heldout_size`` and ``dev_size`` pairs; topics are
    taken in the order of a hash of (seed, topic), leaving out those larger than what is owed.
    """
    if heldout_size + dev_size > len(pairs) // 2:
        raise ValueError(
            f"only {len(pairs)} pairs were found, too few to hold out {heldout_size} and keep "
            f"{dev_size} for validation; read more packages or ask for less "
            "(--heldout_size, --dev_size)"
        )
    topics: dict[str, dict[str, int]] = defaultdict(Counter)
    for pair in pairs:
        topics[pair.package][f"{pair.package}:{pair.topic}"] += 1
    part_of: dict[str, Part] = {}
    wanted: tuple[tuple[Part, int], ...] = (("heldout", heldout_size), ("dev", dev_size))
    for part, size in wanted:
        owed = 0.0
        for sizes in topics.values():
            owed += size * sum(sizes.values()) / len(pairs)
            for topic in sorted(sizes, key=lambda topic: _hash(seed, topic)):
                if topic not in part_of and sizes[topic] <= owed:
                    part_of[topic] = part
                    owed -= sizes[topic]
    parts: dict[Part, list[DocstringPair]] = {"train": [], "dev": [], "heldout": []}
    for pair in pairs:
        parts[part_of.get(f"{pair.package}:{pair.topic}", "train")].append(pair)
    for part, size in wanted:
        if size and not parts[part]:
            raise ValueError(
                f"no module is small enough for a {part} part of {size} of {len(pairs)} pairs; "
                f"read more packages or give a larger --{part}_size"
            )
    return parts


def _hash(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}:{text}".encode()).hexdigest()


def hard_negatives(pairs: Sequence[DocstringPair], count: int, seed: int) -> Iterator[list[str]]:
    """Yield ``count`` hard negatives for each pair, in order.

    A little over half are drawn from the best BM25 hits, the others from the same topic; where a
    topic is too small, any document fills up. Documents are left out whose own query asks the
    same, or which hold the query. Deterministic in (pairs, count, seed).
    """
    if count >= len(pairs):
        raise ValueError(f"{count} negatives need more than {count} pairs, got {len(pairs)}")
    documents = [pair.document for pair in pairs]
    queries = [" ".join(pair.query.lower().split()).rstrip(".") for pair in pairs]
    stems = [content_stems(query) for query in queries]
    by_topic: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        by_topic[pair.package, pair.topic].append(place)

    def may_answer(query: int, document: int) -> bool:
        common, either = stems[query] & stems[document], stems[query] | stems[document]
        same_question = len(common) >= _SAME_QUESTION * len(either)
        return same_question or queries[query] in " ".join(documents[document].lower().split())

    searched = BM25(documents).search([pair.query for pair in pairs], _LEXICAL_DEPTH)
    for place, hits in enumerate(searched):
        pair = pairs[place]
        rng = random.Random(f"{seed}:{pair.name}")
        chosen: list[int] = []
        for source, wanted in (
            ([other for other, _ in hits], (count + 1) // 2),
            (by_topic[pair.package, pair.topic], count),
            (range(len(pairs)), count),
        ):
            for other in rng.sample(source, min(len(source), 5 * count)):
                if len(chosen) == wanted:
                    break
                if other not in (place, *chosen) and not may_answer(place, other):
                    chosen.append(other)
        yield [documents[other] for other in chosen]
