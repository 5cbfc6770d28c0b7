"""The three shapes that a record is parsed into."""

from typing import Literal, NamedTuple

# A scored pair, a query with its document, or a query with positive and negative candidates.
Shape = Literal["scored_pair", "positive_pair", "candidate_group"]


class ScoredPair(NamedTuple):
    """A query and a document, their relevance in [0, 1] and the weight (> 0) of this label."""

    query: str
    doc: str
    rel: float
    weight: float
    key: str | None
    prompt: str | None


class PositivePair(NamedTuple):
    """A query, a document that answers it, and any number of documents that do not."""

    query: str
    pos_doc: str
    negatives: list[str]
    prompt: str | None


class CandidateGroup(NamedTuple):
    """A query with its positives and negatives.

    ``graded`` says what the scores are. True: graded relevance judgements in [0, 1], never None.
    False: a teacher's, on any scale, or None, and the relevances are 1 for ``pos``, 0 for ``neg``.
    """

    query: str
    pos: list[str]
    neg: list[str]
    pos_scores: list[float] | None
    neg_scores: list[float] | None
    prompt: str | None
    graded: bool

    def relevances(self) -> list[float]:
        """The relevance of each positive, then of each negative."""
        if self.graded:
            return (self.pos_scores or []) + (self.neg_scores or [])
        return [1.0] * len(self.pos) + [0.0] * len(self.neg)

    def repeats_a_document(self) -> bool:
        """Whether a document is listed more than once."""
        return len({*self.pos, *self.neg}) < len(self.pos) + len(self.neg)


Row = ScoredPair | PositivePair | CandidateGroup
