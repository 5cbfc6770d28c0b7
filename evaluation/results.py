"""The results of an evaluation: the content of ``evaluation.json``, tables and figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from encoders.kinds import Kind
from evaluation.metrics.comparison import Comparison

Task = Literal["retrieval", "reranking", "pairs"]
# For each of "relevant" and "irrelevant", a sample of the scores, in rising order.
ScoreSamples = dict[str, list[float]]

# The two models of a comparison, as they are called in the file and in all tables.
TUNED, BASE = "fine-tuned", "base"
COUNTS = ("queries", "documents", "pairs")
NESTED = ("first_stage", "fused")  # results that stand in others


@dataclass(frozen=True)
class MetricResult:
    """One metric, by "base" (if it was measured) and "fine-tuned"."""

    values: dict[str, float | None]  # None where undefined
    comparison: Comparison | None = None  # if both have a value and their difference an interval
    undefined: str | None = None  # what has no value, and why

    def to_json(self) -> dict[str, Any]:
        """The values, the comparison and the reason in one flat object, without what is absent."""
        others = {} if self.comparison is None else self.comparison._asdict()
        others = {k: v for k, v in others.items() if k not in ("base", "tuned") and v is not None}
        reason = {} if self.undefined is None else {"undefined": self.undefined}
        return {**self.values, **others, **reason}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "MetricResult":
        """The inverse of ``to_json``."""
        others = dict(content)
        values = {which: others.pop(which) for which in (BASE, TUNED) if which in content}
        undefined = others.pop("undefined", None)
        if not others:
            return cls(values, None, undefined)
        return cls(values, Comparison(content[BASE], content[TUNED], **others), undefined)


class ChangedQuery(NamedTuple):
    """A query on which fine-tuning changed the main metric."""

    query_id: str
    query: str
    base: float
    tuned: float
    relevant: str  # the beginning of the document judged most relevant; "" if its text is unknown


CHANGED_QUERY = ("query_id", "query", BASE, TUNED, "relevant")  # its fields in the file


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated, known before anything is measured."""

    kind: Kind
    data: str  # as the user named them
    split: str | None  # None: the data have no splits, or the only one was read
    models: dict[str, str]  # by "fine-tuned", and what it is compared with by "base"
    task: Task
    # Those that decide the figures and are not at their defaults, such as truncate_dim.
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def compared(self) -> bool:
        """Whether there is a base."""
        return BASE in self.models


@dataclass(frozen=True, kw_only=True)
class Results(Subject):
    """What was measured."""

    created: str  # ISO 8601 with time zone
    counts: dict[str, int]  # "queries" and "documents", or "pairs"
    main_metric: str  # decides whether a model is better
    metrics: dict[str, MetricResult]
    scores: dict[str, ScoreSamples] = field(default_factory=dict)  # by "fine-tuned" and "base"
    # Rankings with a base: by "gained" and "lost", the largest change first.
    changed_queries: dict[str, list[ChangedQuery]] = field(default_factory=dict)
    # Rerankers: the same ranking against the order of the first stage.
    first_stage: "Results | None" = None
    # With fusion.json: the fused ranking against an embedder's own, or that of the first stage.
    fused: "Results | None" = None

    def defined(self) -> dict[str, MetricResult]:
        """The metrics of which everything has a value."""
        return {name: found for name, found in self.metrics.items() if found.undefined is None}

    def undefined_by_reason(self) -> dict[str, str]:
        """The names of the undefined metrics, joined, by the reason why they are undefined."""
        names: dict[str, list[str]] = {}
        for name, found in self.metrics.items():
            if found.undefined is not None:
                names.setdefault(found.undefined, []).append(name)
        return {reason: ", ".join(own) for reason, own in names.items()}

    def to_json(self) -> dict[str, Any]:
        """The content of ``evaluation.json``; of plain objects, lists, strings and numbers."""
        content = {
            **{name: getattr(self, name) for name in ("kind", "data", "split", "models", "task")},
            "created": self.created,
            **self.counts,
            **({"settings": self.settings} if self.settings else {}),
            "main_metric": self.main_metric,
            "metrics": {name: found.to_json() for name, found in self.metrics.items()},
            "scores": self.scores,
        }
        for side, queries in self.changed_queries.items():
            content[side] = [dict(zip(CHANGED_QUERY, query, strict=True)) for query in queries]
        for name in NESTED:
            if (nested := getattr(self, name)) is not None:
                content[name] = nested.to_json()
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Results":
        """The inverse of ``to_json``."""
        others = dict(content)
        counts = {name: others.pop(name) for name in COUNTS if name in content}
        metrics = {n: MetricResult.from_json(found) for n, found in others.pop("metrics").items()}
        changed = {
            side: [ChangedQuery(*(row[name] for name in CHANGED_QUERY)) for row in others.pop(side)]
            for side in ("gained", "lost")
            if side in content
        }
        nested = {name: cls.from_json(others.pop(name)) for name in NESTED if name in content}
        others |= nested
        return cls(
            counts=counts,
            metrics=metrics,
            changed_queries=changed,
            **others,
        )
