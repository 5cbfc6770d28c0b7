"""Mine negatives for a block of queries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import NamedTuple

from mining.data.corpus import Corpus
from mining.data.queries import Queries
from mining.policy.picker import Candidate, Picker
from mining.policy.policy import Limits, Policy
from mining.policy.rules import Rules, TextForms
from mining.scoring.teacher import Teacher, sigmoid
from mining.search.index import Index, Ranking

_SCORED_AT_ONCE = 32  # random candidates
# Random candidates that are tried for one random negative. Limits that nearly nothing keeps to
# would otherwise have the whole corpus tried, and scored by the reranker, for each query.
RANDOM_TRIES = 32


class Mined(NamedTuple):
    """The mining result of one query.

    Attributes:
        negatives: Hard ones by rank, then random ones.
        hard: How many of them are hard.
        positive: The lowest score of a positive in the search.
        looked_at: How many candidates were tried.
        removed: How many of these were removed for which reason.
    """

    negatives: list[Candidate]
    hard: int
    positive: float | None
    looked_at: int
    removed: dict[str, int]


class Judge(NamedTuple):
    """A reranker that may remove candidates.

    Attributes:
        teacher: Gives raw scores.
        limits: On their sigmoid, from 0 to 1.
    """

    teacher: Teacher
    limits: Limits


@dataclass
class Miner:
    """Search, filter candidates by the policy, and let a reranker judge them.

    Queries without a positive get no negatives: what answers them is not known.

    Args:
        queries: The queries.
        corpus: The documents.
        index: Finds documents.
        policy: What may become a negative.
        judge: A reranker, or None.
    """

    queries: Queries
    corpus: Corpus
    index: Index
    policy: Policy
    judge: Judge | None = None

    def __post_init__(self) -> None:
        self.forms = TextForms(self.corpus)

    def mine(self, start: int, stop: int) -> list[Mined]:
        """Mine for the queries ``start:stop``.

        The candidates of all of them are scored together, in rounds: the reranker sees as many as
        are missing, and where it removes some, the next ones.
        """
        depth, texts = self.policy.depth, self.queries.texts(start, stop)
        found = self.index.search(start, stop, depth) if depth else [[] for _ in texts]
        lowest = [self._lowest(start + at) for at in range(len(texts))]
        pickers = [
            self._picker(start + at, text, found[at], lowest[at]) for at, text in enumerate(texts)
        ]
        if self.judge is None:
            for picker in pickers:
                for kind, candidate in picker.propose():
                    picker.take(kind, candidate)
        else:
            self._pick_by_judge(self.judge, start, stop, pickers)
        return [
            Mined(
                picker.negatives(),
                len(picker.taken[0]),
                score,
                picker.looked_at,
                dict(picker.removed),
            )
            for picker, score in zip(pickers, lowest, strict=True)
        ]

    def _lowest(self, query: int) -> float | None:
        """Return the lowest score of a positive; None if there is no positive."""
        positives = self.queries.positives(query)
        return min(self.index.scores(query, positives)) if positives else None

    def _picker(self, query: int, text: str, found: Ranking, lowest: float | None) -> Picker:
        """Build the picker of a query."""
        if lowest is None:
            return Picker(iter(()), iter(()), (0, 0), lambda _: None)
        policy = self.policy
        rules = Rules(
            text,
            self.queries.positives(query),
            self.queries.kept(query),
            self.forms,
            policy.limits,
            lowest,
            policy.near_duplicates,
        )
        hard = (
            Candidate(found[rank - 1][0], rank, found[rank - 1][1])
            for rank in policy.hard_ranks(text, len(found))
        )
        at_random = self._random_candidates(query, text, found)
        return Picker(hard, at_random, policy.wanted, rules.reason)

    def _random_candidates(self, query: int, text: str, found: Ranking) -> Iterator[Candidate]:
        """Yield documents in random order, without those that the search ranked too high."""
        beyond = self.policy.random_from or 0
        too_good = {place for place, _ in found[:beyond]}
        ranks = {place: rank for rank, (place, _) in enumerate(found, start=1)}
        places = (
            place
            for place in self.policy.random_places(text, self.corpus.searchable)
            if place not in too_good
        )
        tried = islice(places, RANDOM_TRIES * self.policy.wanted[1])
        while some := list(islice(tried, _SCORED_AT_ONCE)):
            scored = self.policy.limits.given
            scores = self.index.scores(query, some) if scored else [None] * len(some)
            for place, score in zip(some, scores, strict=True):
                yield Candidate(place, ranks.get(place), score)

    def _pick_by_judge(
        self, judge: Judge, start: int, stop: int, pickers: Sequence[Picker]
    ) -> None:
        asked = self.queries.asked(start, stop)
        lowest = self._judge_positives(judge, start, asked)
        while True:
            proposed = [
                (at, kind, candidate)
                for at, picker in enumerate(pickers)
                for kind, candidate in picker.propose()
            ]
            if not proposed:
                return
            texts = self.corpus.at([candidate.place for _, _, candidate in proposed])
            pairs = [
                judge.teacher.pair(*asked[at], text)
                for (at, _, _), text in zip(proposed, texts, strict=True)
            ]
            scores = sigmoid(judge.teacher.score(pairs)).tolist()
            for (at, kind, candidate), score in zip(proposed, scores, strict=True):
                if broken := judge.limits.broken(score, lowest[at]):
                    pickers[at].remove(f"reranker {broken}")
                else:
                    pickers[at].take(kind, candidate)

    def _judge_positives(
        self, judge: Judge, start: int, asked: Sequence[tuple[str, str | None]]
    ) -> list[float]:
        """Return the reranker's lowest score of a positive for each query, 1 where there is none.

        Negatives that are kept are scored here too, as their scores are going to be written.
        """
        numbers = range(len(asked))
        positives = [self.queries.positives(start + at) for at in numbers]
        texts = iter(self.corpus.at(list(chain(*positives))))
        of_positives = [
            [judge.teacher.pair(*asked[at], next(texts)) for _ in positives[at]] for at in numbers
        ]
        of_kept = [
            judge.teacher.pair(*asked[at], text)
            for at in numbers
            for text in self.queries.kept_texts(start + at)
        ]
        different = list(dict.fromkeys(chain(*of_positives, of_kept)))
        scores = sigmoid(judge.teacher.score(different)).tolist()
        found = dict(zip(different, scores, strict=True))
        return [min((found[pair] for pair in pairs), default=1.0) for pairs in of_positives]
