"""Pick one query's negatives: try candidates in order until enough are taken."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

Reason = str


class Candidate(NamedTuple):
    """A document that may become a negative.

    Attributes:
        place: Where it stands in the corpus.
        rank: In the search, from 1; None if it was not found so far up.
        score: In the search; None where nobody asks.
    """

    place: int
    rank: int | None
    score: float | None


class Picker:
    """Try candidates until enough are taken; count why others were removed.

    Args:
        hard: Hard candidates in the order in which they are to be tried.
        at_random: Random ones.
        wanted: How many are to be taken of each.
        rule: Why a candidate must not be taken; None: it may.

    Attributes:
        taken: The negatives so far, hard and random.
        looked_at: How many candidates were tried.
        removed: How many were removed for which reason.
        positives: Those that the reranker takes for answers.
    """

    def __init__(
        self,
        hard: Iterator[Candidate],
        at_random: Iterator[Candidate],
        wanted: tuple[int, int],
        rule: Callable[[Candidate], Reason | None],
    ) -> None:
        self.candidates = hard, at_random
        self.wanted = wanted
        self.rule = rule
        self.taken: tuple[list[Candidate], list[Candidate]] = ([], [])
        self.looked_at = 0
        self.removed: Counter[Reason] = Counter()
        self.tried: set[int] = set()
        self.positives: list[Candidate] = []

    def propose(self) -> list[tuple[int, Candidate]]:
        """Return the next candidates that break no rule, as many as are missing; none: done.

        Each comes with its kind, 0 for hard and 1 for random. Whoever asks puts it into ``taken``
        or counts it in ``removed``.
        """
        proposed = []
        for kind, (candidates, taken) in enumerate(zip(self.candidates, self.taken, strict=True)):
            missing = self.wanted[kind] - len(taken)
            while missing and (candidate := next(candidates, None)):
                if candidate.place in self.tried:
                    continue
                self.tried.add(candidate.place)
                self.looked_at += 1
                if reason := self.rule(candidate):
                    self.removed[reason] += 1
                else:
                    proposed.append((kind, candidate))
                    missing -= 1
        return proposed

    def negatives(self) -> list[Candidate]:
        """Return the accepted negatives: hard ones by rank, then random ones as drawn."""
        hard, at_random = self.taken
        return sorted(hard, key=lambda candidate: candidate.rank or 0) + at_random
