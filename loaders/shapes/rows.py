"""The three shapes that records are read into."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """A query, a document, its relevance in [0, 1] and the weight (> 0) of this judgement."""

    query: str
    doc: str
    rel: float
    weight: float
    key: str | None
    prompt: str | None


@dataclass(frozen=True, slots=True)
class PositivePair:
    """A query, a document that answers it, and maybe some that do not."""

    query: str
    pos_doc: str
    negatives: list[str]
    prompt: str | None


@dataclass(frozen=True, slots=True)
class CandidateGroup:
    """A query with its positives and negatives.

    ``graded``: the scores, which are then never None, are relevances in [0, 1]. Otherwise they
    are a teacher's on any scale, or None, and the relevances are 1 for ``pos``, 0 for ``neg``.
    """

    query: str
    pos: list[str]
    neg: list[str]
    pos_scores: list[float] | None
    neg_scores: list[float] | None
    prompt: str | None
    graded: bool


Row = ScoredPair | PositivePair | CandidateGroup
