"""Rules that exclude a document as a negative of a query."""

from collections.abc import Iterable
from functools import lru_cache

from mining.data.corpus import Corpus
from mining.policy.picker import Candidate, Reason
from mining.policy.policy import Limits
from preparation.duplicates.near_duplicates import shingles
from preparation.duplicates.normalized import normalize

_TEXTS_IN_MEMORY = 20_000


class TextForms:
    """Normalised forms of corpus texts, cached for the most recent ones."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.forms = lru_cache(_TEXTS_IN_MEMORY)(self._forms)

    def _forms(self, place: int) -> tuple[str, frozenset[int]]:
        (text,) = self.corpus.at([place])
        return forms(text)


def forms(text: str) -> tuple[str, frozenset[int]]:
    """Return a text normalised, and the hashes of its word trigrams."""
    return normalize(text), frozenset(hash(run) for run in shingles(text) if run)


class Rules:
    """The rules for one query's candidates.

    Args:
        query: Its text.
        positives: Places of its known positives, in its own row and in others of the same query.
        kept: Places of negatives that it has already and keeps.
        texts: Of the corpus.
        limits: On the scores of the search.
        lowest: The lowest score of a positive.
        near_duplicates: See ``Policy``.
    """

    def __init__(
        self,
        query: str,
        positives: Iterable[int],
        kept: Iterable[int],
        texts: TextForms,
        limits: Limits,
        lowest: float,
        near_duplicates: float | None,
    ) -> None:
        self.positives = set(positives)
        self.kept = set(kept)
        self.texts = texts
        self.limits = limits
        self.lowest = lowest
        self.near_duplicates = near_duplicates
        self.ids = {texts.corpus.document_of(place) for place in self.positives}
        self.of_positives = [texts.forms(place) for place in sorted(self.positives)]
        self.of_query = forms(query)

    def reason(self, candidate: Candidate) -> Reason | None:
        """Return why a candidate must not be taken; None: it may."""
        place = candidate.place
        if place in self.positives:
            return "a positive"
        if self.texts.corpus.document_of(place) in self.ids:
            return "id of a positive"
        if place in self.kept:
            return "there already"
        if self.limits.given:
            assert candidate.score is not None
            if broken := self.limits.broken(candidate.score, self.lowest):
                return broken
        return self._text_reason(place)

    def _text_reason(self, place: int) -> Reason | None:
        form = self.texts.forms(place)
        if any(form[0] == other[0] for other in self.of_positives):
            return "text of a positive"
        if form[0] == self.of_query[0]:
            return "text of the query"
        if self.near_duplicates is None:
            return None
        if any(alike(form[1], other[1]) >= self.near_duplicates for other in self.of_positives):
            return "almost a positive"
        if alike(form[1], self.of_query[1]) >= self.near_duplicates:
            return "almost the query"
        return None


def alike(one: frozenset[int], other: frozenset[int]) -> float:
    """Return the containment: the share of the smaller set that is in the other too."""
    return len(one & other) / min(len(one), len(other)) if one and other else 0.0
