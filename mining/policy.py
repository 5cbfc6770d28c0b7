"""Mining policy: which ranks negatives come from, in which order they are tried, score limits."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from common.flags import Settings, option

_FIRST_DRAW = 64


class Limits(NamedTuple):
    """Upper limits on a negative's score; None: no such limit.

    Attributes:
        max_score: The highest score.
        absolute_margin: So much below the lowest score of a positive, or more.
        relative_margin: The same as a share of that score: 0.05 leaves documents that score 95 %
            of it, or less. Of a score below 0, the share of its size.
    """

    max_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None

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


NO_LIMITS = Limits()


@dataclass(kw_only=True)
class LimitSettings(Settings):
    """Filters against false negatives."""

    max_score: float | None = option(None, "Drop documents that score more than this.")
    absolute_margin: float | None = option(
        None, "Drop those that score more than the lowest positive's score minus this.", least=0
    )
    relative_margin: float | None = option(
        None, "Drop those above (1 - this) times that score; 0.05 keeps up to 95 % of it.", least=0
    )
    near_duplicates: float = option(
        0.8,
        "Drop those that share this fraction of their word trigrams with a positive or the query; "
        "0: off.",
        least=0,
    )


@dataclass(kw_only=True)
class Policy(LimitSettings):
    """Choice of negatives.

    Ranks count from 1, the best hit of the search. What is drawn for a query depends on the seed
    and the query, at random also on the order of the corpus.
    """

    num_negatives: int = option(7, "Negatives to mine per query.", least=1)
    rank_range: tuple[int, int] = option(
        (2, 200), "First and last rank of hard negatives; 1 is the best hit.", least=1
    )
    sampling: Literal["random", "top"] = option(
        "random", "Sample from the range, or take the highest-ranked allowed ones."
    )
    random_share: float = option(0.0, "Fraction of the negatives drawn at random.")
    random_from: int | None = option(
        None, "Draw random ones from ranks above this; null: from the whole corpus.", least=1
    )
    existing: Literal["keep", "replace"] = option(
        "keep", "Keep or replace the negatives that rows have already."
    )
    seed: int = option(42, "Random seed for sampling.")

    def __post_init__(self) -> None:
        super().__post_init__()
        first, last = self.rank_range
        if first > last:
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
        if self.random_from is not None and not self.random_share:
            raise ValueError("random_from: is for random negatives; give random_share too")
        if self.near_duplicates > 1:
            raise ValueError(f"near_duplicates: must be at most 1, got {self.near_duplicates:g}")

    @property
    def limits(self) -> Limits:
        """Limits on the scores of the search."""
        return Limits(self.max_score, self.absolute_margin, self.relative_margin)

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
