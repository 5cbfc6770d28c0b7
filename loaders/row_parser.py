"""Records to typed, checked rows."""

import re
from collections import Counter
from typing import Any

from loaders.fields import (
    RowError,
    as_number,
    as_numbers,
    as_relevance,
    as_text,
    check_characters,
    find,
    require,
    show,
)
from loaders.options import DEFAULT_LABEL_MAP, ReadOptions
from loaders.records import Record
from loaders.rows import CandidateGroup, PositivePair, Row, ScoredPair

_WHOLE = re.compile(r"^([-+]?\d+)\.0*$")


class RowParser:
    """Makes rows of records, and counts what it did not use.

    Attributes:
        unused: Name of a field -> how often it was there and not used.
        default_labels: Number of labels mapped by ``DEFAULT_LABEL_MAP``.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.unused: Counter[str] = Counter()
        self.default_labels = 0

    def parse(self, record: Record) -> Row:
        """The row of a record, its shape told by its fields.

        Raises:
            RowError: If it is none; the message gives the field, the value and the remedy.
        """
        if record.problem is not None:
            raise RowError(record.problem)
        fields = record.fields
        if not isinstance(fields, dict):
            raise RowError(f"a row must be an object with named fields, got {show(fields)}")
        if {"_id", "text"} <= fields.keys() and find(fields, "query") is None:
            raise RowError(
                "a document or query of a BEIR folder, which is no training row; make groups of "
                "the folder: scripts/prepare_data.py beir --help"
            )
        query = require(fields, "query")
        text = as_text(fields[query], query)
        used = [query]
        prompt = self._prompt(fields, used)
        row: Row
        if find(fields, "hits"):
            row = self._hits(record, text, prompt, used)
        elif find(fields, "pos"):
            row = self._group(record, text, prompt, used)
        elif find(fields, "pos_doc"):
            row = self._positive_pair(fields, text, prompt, used)
        elif find(fields, "doc"):
            row = self._scored_pair(record, text, prompt, used)
        else:
            raise RowError(
                f'no document in the fields {show(list(fields))}: a row needs "pos", "hits", '
                '"pos_doc", or "doc" with "rel"'
            )
        self._check_scores(row)
        for name, value in fields.items():
            if value is not None and name not in used:
                self.unused[name] += 1
        return row

    def _scored_pair(
        self, record: Record, query: str, prompt: str | None, used: list[str]
    ) -> ScoredPair:
        fields = record.fields
        doc, rel = require(fields, "doc"), require(fields, "rel")
        used += [doc, rel]
        weight = 1.0
        if name := find(fields, "weight"):
            used.append(name)
            weight = as_number(fields[name], name, record.labels != "typed")
            if weight <= 0:
                raise RowError(f'"{name}" must be above 0, got {weight:g}')
        key = None
        if name := find(fields, "key"):
            used.append(name)
            if not isinstance(fields[name], str | int | float):
                raise RowError(f'"{name}" must be a text or a number, got {show(fields[name])}')
            key = check_characters(str(fields[name]), name)
        text = as_text(fields[doc], doc)
        relevance = self._label(fields[rel], rel, record)
        return ScoredPair(query, text, relevance, weight, key, prompt)

    def _positive_pair(
        self, fields: dict[str, Any], query: str, prompt: str | None, used: list[str]
    ) -> PositivePair:
        name = require(fields, "pos_doc")
        used.append(name)
        pos_doc = as_text(fields[name], name)
        negatives = self._documents(fields, "neg", used)
        self._check_negatives(negatives)
        return PositivePair(query, pos_doc, negatives, prompt)

    def _group(
        self, record: Record, query: str, prompt: str | None, used: list[str]
    ) -> CandidateGroup:
        fields = record.fields
        pos = self._documents(fields, "pos", used)
        neg = self._documents(fields, "neg", used)
        pos_scores = self._scores(record, "pos_scores", len(pos), used)
        neg_scores = self._scores(record, "neg_scores", len(neg), used)
        if not self.options.relevance_from_scores:
            if not pos:
                raise RowError(f'"{require(fields, "pos")}" is empty')
            self._check_negatives(neg)
            return CandidateGroup(query, pos, neg, pos_scores, neg_scores, prompt, graded=False)
        for documents, scores, name in ((pos, pos_scores, "pos"), (neg, neg_scores, "neg")):
            if documents and scores is None:
                raise RowError(
                    f'missing field "{name}_scores", which relevance_from_scores asks for'
                )
        relevances = [
            as_relevance(score, f"{name}[{at}]", self.options.label_range)
            for name, scores in (("pos_scores", pos_scores), ("neg_scores", neg_scores))
            for at, score in enumerate(scores or [])
        ]
        return self._graded(query, pos + neg, relevances, prompt)

    def _hits(
        self, record: Record, query: str, prompt: str | None, used: list[str]
    ) -> CandidateGroup:
        name = require(record.fields, "hits")
        used.append(name)
        hits = record.fields[name]
        if not isinstance(hits, list):
            raise RowError(f'"{name}" must be a list, got {show(hits)}')
        documents, relevances = [], []
        for at, hit in enumerate(hits):
            if not isinstance(hit, dict):
                raise RowError(f'"{name}[{at}]" must be an object, got {show(hit)}')
            doc, rel = require(hit, "doc"), require(hit, "rel")
            documents.append(as_text(hit[doc], f"{name}[{at}].{doc}"))
            relevances.append(self._label(hit[rel], f"{name}[{at}].{rel}", record))
            self._count_others(hit, name, (doc, rel))
        return self._graded(query, documents, relevances, prompt)

    def _graded(
        self, query: str, documents: list[str], relevances: list[float], prompt: str | None
    ) -> CandidateGroup:
        """Divide documents into positives and negatives by their relevance."""
        if not documents:
            raise RowError("a group without any document")
        group = CandidateGroup(query, [], [], [], [], prompt, graded=True)
        assert group.pos_scores is not None and group.neg_scores is not None
        for document, relevance in zip(documents, relevances, strict=True):
            if relevance >= self.options.positive_threshold:
                group.pos.append(document)
                group.pos_scores.append(relevance)
            else:
                group.neg.append(document)
                group.neg_scores.append(relevance)
        return group

    def _prompt(self, fields: dict[str, Any], used: list[str]) -> str | None:
        name = find(fields, "prompt")
        if name is None:
            return None
        used.append(name)
        if not isinstance(fields[name], str):
            raise RowError(f'"{name}" must be a text, got {show(fields[name])}')
        return check_characters(fields[name], name)

    def _documents(self, fields: dict[str, Any], field: str, used: list[str]) -> list[str]:
        """Texts, or objects with a text; a single one is a list of one; absent is empty."""
        name = find(fields, field)
        if name is None:
            return []
        used.append(name)
        items = fields[name] if isinstance(fields[name], list) else [fields[name]]
        documents = []
        for at, item in enumerate(items):
            if isinstance(item, dict):
                doc = require(item, "doc")
                documents.append(as_text(item[doc], f"{name}[{at}].{doc}"))
                self._count_others(item, name, (doc,))
            else:
                documents.append(as_text(item, f"{name}[{at}]"))
        return documents

    def _scores(
        self, record: Record, field: str, documents: int, used: list[str]
    ) -> list[float] | None:
        name = find(record.fields, field)
        if name is None:
            return None
        used.append(name)
        scores = as_numbers(record.fields[name], name, record.labels != "typed")
        if len(scores) != documents:
            raise RowError(
                f'"{name}" has {len(scores)} scores for {documents} documents in "{field[:3]}"'
            )
        return scores

    def _label(self, value: object, name: str, record: Record) -> float:
        """A label as relevance in [0, 1]."""
        label_map, label_range = self.options.label_map, self.options.label_range
        if label_map is None and label_range is None and record.labels == "default_map":
            label_map = DEFAULT_LABEL_MAP
            self.default_labels += 1
        if label_map is None:
            return as_relevance(as_number(value, name, record.labels != "typed"), name, label_range)
        label = value.strip() if isinstance(value, str) else show(value)
        if label not in label_map:
            # A column of whole numbers with a gap in it is often stored as floats: 3.0 is "3".
            label = _WHOLE.sub(r"\1", label)
        if label not in label_map:
            keys = ", ".join(label_map)
            raise RowError(f'"{name}" is {show(value)}, which is not in label_map ({keys})')
        return float(label_map[label])

    def _check_negatives(self, negatives: list[str]) -> None:
        if self.options.needs_negatives and not negatives:
            raise RowError('"neg" is empty or missing, and the objective needs negatives')

    def _check_scores(self, row: Row) -> None:
        if not self.options.needs_scores or isinstance(row, ScoredPair):
            return
        missing = ["pos_scores", "neg_scores"]
        if isinstance(row, CandidateGroup):
            missing = [
                name
                for name, texts, scores in (
                    ("pos_scores", row.pos, row.pos_scores),
                    ("neg_scores", row.neg, row.neg_scores),
                )
                if texts and scores is None
            ]
        if missing:
            raise RowError(
                f'"{missing[0]}" is missing, and the objective learns a teacher\'s scores; '
                "scripts/score_with_teacher.py writes them"
            )

    def _count_others(self, item: dict[str, Any], parent: str, used: tuple[str, ...]) -> None:
        for name, value in item.items():
            if value is not None and name not in used:
                self.unused[f"{parent}.{name}"] += 1
