"""Mine negatives for a block of queries."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple

from scipy.special import expit

from mining.data.corpus import Corpus
from mining.data.queries import Queries
from mining.picker import Candidate, Picker, Reason
from mining.policy import NO_LIMITS, Limits, Policy
from mining.search.index import Index, Ranking
from mining.teacher import Teacher
from preparation.duplicates.near_duplicates import shingles
from preparation.duplicates.normalized import normalize

Forms = tuple[str, frozenset[int]]  # a text normalised, and the hashes of its word trigrams

_SCORED_AT_ONCE = 32  # random candidates
# Random candidates that are tried for one random negative. Limits that nearly nothing keeps to
# would otherwise have the whole corpus tried, and scored by the reranker, for each query.
RANDOM_TRIES = 32
_TEXTS_IN_MEMORY = 20_000  # whose forms are kept


class Mined(NamedTuple):
    """The mining result of one query.

    Attributes:
        negatives: Hard ones by rank, then random ones.
        positives: Candidates that the reranker takes for answers, where these are relabelled.
        hard: How many of them are hard.
        positive: The lowest score of a positive in the search.
        looked_at: How many candidates were tried.
        removed: How many of these were removed for which reason.
    """

    negatives: list[Candidate]
    positives: list[Candidate]
    hard: int
    positive: float | None
    looked_at: int
    removed: dict[str, int]


@dataclass
class Miner:
    """Search, filter candidates by the policy, and let a reranker judge them.

    Queries without a positive get no negatives: what answers them is not known.

    Args:
        policy: What may become a negative.
        reranker: May remove candidates; None: there is none.
        reranker_limits: On its scores, from 0 to 1.
        relabel_from: A candidate with this score or more is a positive; None: none is.
    """

    queries: Queries
    corpus: Corpus
    index: Index
    policy: Policy
    reranker: Teacher | None = None
    reranker_limits: Limits = NO_LIMITS
    relabel_from: float | None = None

    def __post_init__(self) -> None:
        self.limits = self.policy.limits
        self.is_limited = self.limits != NO_LIMITS
        self.forms = lru_cache(_TEXTS_IN_MEMORY)(self._forms)

    def mine(self, start: int, stop: int) -> list[Mined]:
        """Mine for the queries ``start:stop``.

        The candidates of all of them are scored together, in rounds: the reranker sees as many as
        are missing, and where it removes some, the next ones.
        """
        depth, texts = self.policy.depth, self.queries.texts(start, stop)
        found = self.index.search(start, stop, depth) if depth else [[] for _ in texts]
        lowest = [self._lowest(query) for query in range(start, stop)]
        pickers = [
            self._picker(start + at, text, found[at], lowest[at]) for at, text in enumerate(texts)
        ]
        if self.reranker is None:
            for picker in pickers:
                for kind, candidate in picker.propose():
                    picker.taken[kind].append(candidate)
        else:
            self._pick_by_reranker(self.reranker, start, stop, pickers)
        return [
            Mined(
                picker.negatives(),
                picker.positives,
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
        hard = (
            Candidate(found[rank - 1][0], rank, found[rank - 1][1])
            for rank in self.policy.hard_ranks(text, len(found))
        )
        at_random = self._random_candidates(query, text, found)
        return Picker(hard, at_random, self.policy.wanted, self._rule(query, text, lowest))

    def _rule(self, query: int, text: str, lowest: float) -> Callable[[Candidate], Reason | None]:
        """Return what says why a candidate must not become a negative of a query; None: it may."""
        positives, kept = set(self.queries.positives(query)), set(self.queries.kept[query])
        ids = set[int]().union(*map(self.corpus.ids_of, positives))
        of_positives = [self.forms(place) for place in sorted(positives)]
        query_text, query_trigrams = forms(text)
        near = self.policy.near_duplicates

        def reason(candidate: Candidate) -> Reason | None:
            place = candidate.place
            if place in positives:
                return "a positive"
            if not ids.isdisjoint(self.corpus.ids_of(place)):
                return "id of a positive"
            if place in kept:
                return "there already"
            if self.is_limited:
                assert candidate.score is not None
                if broken := self.limits.broken(candidate.score, lowest):
                    return broken
            text, trigrams = self.forms(place)
            if any(text == other for other, _ in of_positives):
                return "text of a positive"
            if text == query_text:
                return "text of the query"
            if near and any(containment(trigrams, other) >= near for _, other in of_positives):
                return "almost a positive"
            if near and containment(trigrams, query_trigrams) >= near:
                return "almost the query"
            return None

        return reason

    def _forms(self, place: int) -> Forms:
        (text,) = self.corpus.at([place])
        return forms(text)

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
            scores = self.index.scores(query, some) if self.is_limited else [None] * len(some)
            for place, score in zip(some, scores, strict=True):
                yield Candidate(place, ranks.get(place), score)

    def _pick_by_reranker(
        self, reranker: Teacher, start: int, stop: int, pickers: Sequence[Picker]
    ) -> None:
        queries = self.queries.with_prompts(start, stop)
        lowest = self._score_positives(reranker, start, queries)
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
                reranker.pair(*queries[at], text)
                for (at, _, _), text in zip(proposed, texts, strict=True)
            ]
            scores = expit(reranker.score(pairs)).tolist()
            for (at, kind, candidate), score in zip(proposed, scores, strict=True):
                if self.relabel_from is not None and score >= self.relabel_from:
                    pickers[at].positives.append(candidate)
                    pickers[at].removed["answer by the reranker: now a positive"] += 1
                elif broken := self.reranker_limits.broken(score, lowest[at]):
                    pickers[at].removed[f"reranker {broken}"] += 1
                else:
                    pickers[at].taken[kind].append(candidate)

    def _score_positives(
        self, reranker: Teacher, start: int, queries: Sequence[tuple[str, str | None]]
    ) -> list[float]:
        """Return the reranker's lowest score of a positive for each query, 1 where there is none.

        Negatives that are kept are scored here too, as their scores are going to be written.
        """
        numbers = range(len(queries))
        positives = [self.queries.positives(start + at) for at in numbers]
        texts = iter(self.corpus.at(list(chain(*positives))))
        of_positives = [
            [reranker.pair(*queries[at], next(texts)) for _ in positives[at]] for at in numbers
        ]
        of_kept = [
            reranker.pair(*queries[at], text)
            for at in numbers
            for text in self.queries.kept_texts(start + at)
        ]
        different = list(dict.fromkeys(chain(*of_positives, of_kept)))
        scores = expit(reranker.score(different)).tolist()
        found = dict(zip(different, scores, strict=True))
        return [min((found[pair] for pair in pairs), default=1.0) for pairs in of_positives]


def forms(text: str) -> Forms:
    """Return a text normalised, and the hashes of its word trigrams."""
    return normalize(text), frozenset(hash(run) for run in shingles(text) if run)


def containment(one: frozenset[int], other: frozenset[int]) -> float:
    """Return the share of the smaller set that is in the other too."""
    return len(one & other) / min(len(one), len(other)) if one and other else 0.0
