"""Mining policy: which ranks negatives come from, in which order they are tried, score limits."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Sampling = Literal["random", "top"]

_FIRST_DRAW = 64


@dataclass(frozen=True)
class Limits:
    """Upper limits on a negative's score; None: no such limit.

    Args:
        max_score: The highest score.
        absolute_margin: So much below the lowest score of a positive, or more.
        relative_margin: The same as a share of that score: 0.05 leaves documents that score 95 %
            of it, or less. Of a score below 0, the share of its size.
    """

    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None

    def __post_init__(self) -> None:
        for name in ("absolute_margin", "relative_margin"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name}: must be at least 0, got {value:g}")

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return (self.max_score, self.absolute_margin, self.relative_margin) != (None, None, None)

    def broken(self, score: float, positive: float) -> str | None:
        """Return the name of the limit that a score exceeds; None: it exceeds none.

        Args:
            score: The document's.
            positive: The lowest of the positives' scores.
        """
        relative, absolute = self.relative_margin, self.absolute_margin
        if self.max_score is not None and score > self.max_score:
            return "max_score"
        if absolute is not None and score > positive - absolute:
            return "absolute_margin"
        if relative is not None and score > positive - abs(positive) * relative:
            return "relative_margin"
        return None


@dataclass(frozen=True)
class Policy:
    """How negatives are chosen. Ranks count from 1, the best hit of the search.

    Args:
        num_negatives: Negatives to mine for each query.
        rank_range: First and last rank that hard negatives come from.
        sampling: "random" draws them from the range, "top" takes the best that may be taken.
        random_share: Share of the negatives that are drawn at random instead.
        random_from: Draw those from ranks above this one; None: from the whole corpus.
        limits: On the scores of the search.
        near_duplicates: How alike a document may be to a positive or to the query, in (0, 1]:
            the share of the shorter text's runs of three words that stand in the other one too.
            From this on it is removed; None: only texts that are the same are.
        seed: Of the draws. What is drawn for a query depends on it and on the query alone.
    """

    num_negatives: int = 7
    rank_range: tuple[int, int] = (2, 200)
    sampling: Sampling = "random"
    random_share: float = 0.0
    random_from: int | None = None
    limits: Limits = field(default_factory=Limits)
    near_duplicates: float | None = 0.8
    seed: int = 42

    def __post_init__(self) -> None:
        first, last = self.rank_range
        if self.num_negatives < 1:
            raise ValueError(f"num_negatives: must be at least 1, got {self.num_negatives}")
        if not 1 <= first <= last:
            raise ValueError(
                f"rank_range: must be two ranks in rising order, from 1, got {first} {last}"
            )
        if not 0 <= self.random_share <= 1:
            raise ValueError(f"random_share: must be from 0 to 1, got {self.random_share:g}")
        if self.random_share and not self.wanted[1]:
            raise ValueError(
                f"random_share: {self.random_share:g} of {self.num_negatives} negatives is less "
                "than half of one; give a larger share or more negatives"
            )
        if self.random_from is not None and self.random_from < 1:
            raise ValueError(f"random_from: must be at least 1, got {self.random_from}")
        if self.random_from is not None and not self.random_share:
            raise ValueError("random_from: is for random negatives; give random_share too")
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            raise ValueError(
                f"near_duplicates: must be above 0 and at most 1, got {self.near_duplicates:g}"
            )

    @property
    def wanted(self) -> tuple[int, int]:
        """The number of hard and of random negatives of a query."""
        at_random = math.floor(self.num_negatives * self.random_share + 0.5)
        return self.num_negatives - at_random, at_random

    @property
    def depth(self) -> int:
        """The number of documents that the search must return."""
        hard, _ = self.wanted
        return max(self.rank_range[1] if hard else 0, self.random_from or 0)

    def hard_ranks(self, query: str, found: int) -> Iterator[int]:
        """Yield ranks in the order in which hard negatives are tried.

        Args:
            query: The query's text.
            found: How many documents the search found.
        """
        first, last = self.rank_range
        ranks = range(first, min(last, found) + 1)
        if self.sampling == "top":
            yield from ranks
        else:
            yield from self._generator("hard", query).sample(ranks, len(ranks))

    def random_places(self, query: str, size: int) -> Iterator[int]:
        """Yield all indices of a corpus in random order, lazily: the first few are cheap."""
        generator = self._generator("random", query)
        seen: set[int] = set()
        draw = min(_FIRST_DRAW, size)
        while len(seen) < size:
            for place in generator.sample(range(size), draw):
                if place not in seen:
                    seen.add(place)
                    yield place
            draw = min(16 * draw, size)

    def _generator(self, purpose: str, query: str) -> random.Random:
        return random.Random(f"{self.seed} {purpose} {query}")
