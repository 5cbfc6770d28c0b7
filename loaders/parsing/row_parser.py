"""Parse records into typed, validated rows."""

from collections import Counter
from typing import Any

from loaders.formats.records import Record
from loaders.options import ReadOptions
from loaders.parsing.columns import Columns
from loaders.parsing.fields import (
    RowError,
    as_relevance,
    as_score,
    as_text,
    as_weight,
    check_characters,
    passage_text,
    require,
    show,
)
from loaders.parsing.labels import Labels
from loaders.shapes.conversions import to_group
from loaders.shapes.rows import CandidateGroup, PositivePair, Row, ScoredPair

_DOCUMENTS = ("pos", "pos_doc", "doc")


class RowParser:
    """Parses records into rows, and counts the fields it did not use.

    Attributes:
        columns: Maps columns to fields.
        labels: Maps labels to relevances.
        unused: Field name -> number of records with this field, unused.
        suspicious: (file, field name) -> the same, for names that suggest the field matters.
        scored_positives: Number of rows whose ``scores`` belong to several positives and no
            negative.
    """

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.columns = Columns(options.columns)
        self.labels = Labels(options)
        self.unused: Counter[str] = Counter()
        self.suspicious: Counter[tuple[str, str]] = Counter()
        self.scored_positives = 0

    def parse(self, record: Record) -> Row:
        """Parse a record into a row, whose shape follows from the fields.

        Raises:
            RowError: If it is invalid; the message names the field, the value and the remedy.
        """
        if record.problem is not None:
            raise RowError(record.problem)
        if not isinstance(record.fields, dict):
            raise RowError(f"a row must be an object with named fields, got {show(record.fields)}")
        fields = self.columns.with_mapped(record.fields)
        if {"_id", "text"} <= fields.keys() and self.columns.find(fields, "query") is None:
            raise RowError(
                "a document or query of a BEIR folder, not a training row; make groups of "
                "the folder: scripts/prepare_data.py beir --help"
            )
        parsed = _ParsedRecord(self, record._replace(fields=fields))
        row = parsed.row()
        _check_needs(row, self.options)
        for name, value in fields.items():
            if value is not None and not self.columns.is_used(name, parsed.used):
                self.unused[name] += 1
        return row


class _ParsedRecord:
    """A record being parsed, its query and prompt first; ``used``: the columns read so far."""

    def __init__(self, parser: RowParser, record: Record) -> None:
        self.parser, self.options, self.record = parser, parser.options, record
        self.columns, self.labels = parser.columns, parser.labels
        self.fields: dict[str, Any] = record.fields
        query = self.columns.require(self.fields, "query")
        self.used = [query]
        self.query = as_text(self.fields[query], query)
        self.prompt: str | None = None
        if name := self._take("prompt"):
            if not isinstance(self.fields[name], str):
                raise RowError(f'"{name}" must be a text, got {show(self.fields[name])}')
            self.prompt = check_characters(self.fields[name], name)

    def _take(self, field: str) -> str | None:
        """The column with a field, which counts as used; None if there is none."""
        name = self.columns.find(self.fields, field)
        if name is not None:
            self.used.append(name)
        return name

    def row(self) -> Row:
        """Parse the row, by the field that holds its documents."""
        columns, fields = self.columns, self.fields
        if hits := self._take("hits"):
            return self._hits(hits)
        name = next(filter(None, (columns.find(fields, field) for field in _DOCUMENTS)), None)
        if name is None:
            for field in _DOCUMENTS:
                if any(known in columns.columns for known in columns.names[field]):
                    columns.require(fields, field)  # raises, and names the column
            hint = columns.hint(fields, "doc" if columns.find(fields, "rel") else "pos_doc")
            raise RowError(
                f'no document in the fields {show(list(fields))}: a row needs "pos", "hits", '
                f'"pos_doc", or "doc" with "rel"{hint}'
            )
        self.used.append(name)
        if labels := self._labels_of(name):
            self.used.append(labels)
            if isinstance(fields[name], list):
                return self._labeled_list(name, labels)
            return self._scored_pair(name, labels)
        if name in columns.names["pos"]:
            return self._group(name)
        pos_doc = self._passage(fields[name], name, name)
        return PositivePair(self.query, pos_doc, self._negatives(), self.prompt)

    def _labels_of(self, name: str) -> str | None:
        """The column with the labels of the document, or list of documents, under ``name``.

        Required for a "doc". A column of positives has labels too where sentence-transformers
        mined it: one text with a label (labeled-pair), or a list of texts with a list of labels
        (labeled-list). There, a label that is missing must not make a positive.
        """
        columns, fields = self.columns, self.fields
        if name in columns.names["doc"]:
            return columns.require(fields, "rel")
        if columns.negatives(fields) or columns.find(fields, "pos_scores"):
            return None
        several = isinstance(fields[name], list)
        names = [label for label in columns.names["rel"] if label in fields]
        if several:  # beside a list, "score" is a teacher's
            names = [label for label in names if label != "score" or label in columns.columns]
        for label in names:
            value = fields[label]
            if several and isinstance(value, list):
                return label
            if not several and value is not None and self.labels.may_be_label(value, self.record):
                return label
        if missing := [label for label in names if fields[label] in (None, "")]:
            raise RowError(f'"{missing[0]}" has no label for "{name}"; give one, or drop the row')
        return None

    def _scored_pair(self, doc: str, rel: str) -> ScoredPair:
        fields = self.fields
        weight = 1.0
        if name := self._take("weight"):
            weight = as_weight(fields[name], name, self.record.from_text)
        key = None
        if name := self._take("key"):
            if not isinstance(fields[name], str | int | float):
                raise RowError(f'"{name}" must be a text or a number, got {show(fields[name])}')
            key = check_characters(str(fields[name]), name)
        text = self._passage(fields[doc], doc, doc)
        relevance = self.labels.relevance(fields[rel], rel, self.record)
        return ScoredPair(self.query, text, relevance, weight, key, self.prompt)

    def _group(self, name: str) -> CandidateGroup:
        pos = self._documents(name)
        neg = self._negatives()
        pos_scores, neg_scores = self._both_scores(len(pos), len(neg))
        if not self.options.relevance_from_scores:
            if not pos:
                raise RowError(f'"{name}" is empty')
            return CandidateGroup(
                self.query, pos, neg, pos_scores, neg_scores, self.prompt, graded=False
            )
        sides = (("pos", pos, pos_scores), ("neg", neg, neg_scores))
        for side, documents, scores in sides:
            if documents and scores is None:
                raise RowError(f'"{side}_scores" is missing; relevance_from_scores needs it')
        relevances = [
            as_relevance(score, f"{side}_scores[{at}]", self.options.label_range)
            for side, _, scores in sides
            for at, score in enumerate(scores or [])
        ]
        return self._graded(pos + neg, relevances)

    def _hits(self, name: str) -> CandidateGroup:
        hits = self.fields[name]
        if not isinstance(hits, list):
            raise RowError(f'"{name}" must be a list, got {show(hits)}')
        documents, relevances = [], []
        for at, hit in enumerate(hits):
            place = f"{name}[{at}]"
            if not isinstance(hit, dict):
                raise RowError(f'"{place}" must be an object, got {show(hit)}')
            text, made_of = passage_text(hit, place)
            rel = require(hit, "rel", place)
            documents.append(text)
            relevances.append(self.labels.relevance(hit[rel], f"{place}.{rel}", self.record))
            self._count_others(hit, name, (*made_of, rel))
        return self._graded(documents, relevances)

    def _labeled_list(self, name: str, labels: str) -> CandidateGroup:
        """Parse parallel lists of documents and labels."""
        documents, given = self._documents(name), self.fields[labels]
        if not isinstance(given, list) or len(given) != len(documents):
            texts = f'{len(documents)} texts in "{name}"'
            raise RowError(f'"{labels}" must be a list with a label for each of {texts}')
        relevances = [
            self.labels.relevance(label, f"{labels}[{at}]", self.record)
            for at, label in enumerate(given)
        ]
        return self._graded(documents, relevances)

    def _graded(self, documents: list[str], relevances: list[float]) -> CandidateGroup:
        """Split documents into positives and negatives by their relevance."""
        if not documents:
            raise RowError("a group without any document")
        pos, neg, pos_scores, neg_scores = [], [], [], []
        for document, relevance in zip(documents, relevances, strict=True):
            if relevance >= self.options.positive_threshold:
                pos.append(document)
                pos_scores.append(relevance)
            else:
                neg.append(document)
                neg_scores.append(relevance)
        return CandidateGroup(
            self.query, pos, neg, pos_scores, neg_scores, self.prompt, graded=True
        )

    def _negatives(self) -> list[str]:
        names = self.columns.negatives(self.fields)
        self.used += names
        return [text for name in names for text in self._documents(name)]

    def _documents(self, name: str) -> list[str]:
        """A list of texts, or of objects with a text; a single one counts as a list of one."""
        value = self.fields[name]
        items = value if isinstance(value, list) else [value]
        return [self._passage(item, f"{name}[{at}]", name) for at, item in enumerate(items)]

    def _passage(self, item: object, place: str, name: str) -> str:
        """A text, or the title and text of an object."""
        if not isinstance(item, dict):
            return as_text(item, place)
        text, made_of = passage_text(item, place)
        self._count_others(item, name, made_of)
        return text

    def _both_scores(
        self, positives: int, negatives: int
    ) -> tuple[list[float] | None, list[float] | None]:
        """The scores of the positives and of the negatives; ``scores`` may hold both."""
        pos_name, pos = self._scores("pos_scores")
        neg_name, neg = self._scores("neg_scores")
        if pos_name == "scores" and pos is not None and neg is None:
            if not negatives:
                self.parser.scored_positives += positives > 1
            elif len(pos) == positives + negatives:
                return pos[:positives], pos[positives:]
        for name, scores, count, side in (
            (pos_name, pos, positives, "pos"),
            (neg_name, neg, negatives, "neg"),
        ):
            if scores is not None and len(scores) != count:
                raise RowError(
                    f'"{name}" has {len(scores)} scores for {count} documents in "{side}"'
                )
        return pos, neg

    def _scores(self, field: str) -> tuple[str | None, list[float] | None]:
        """The column with the scores, and the scores; a single number is a list of one."""
        name = self._take(field)
        if name is None:
            return None, None
        value = self.fields[name]
        items = value if isinstance(value, list) else [value]
        from_text = self.record.from_text
        return name, [as_score(item, f"{name}[{at}]", from_text) for at, item in enumerate(items)]

    def _count_others(self, item: dict[str, Any], parent: str, used: tuple[str, ...]) -> None:
        for name, value in item.items():
            if value is not None and name not in used:
                self.parser.unused[f"{parent}.{name}"] += 1


def _check_needs(row: Row, options: ReadOptions) -> None:
    """Refuse a row without the negatives, or the teacher's scores, that the objective needs."""
    if isinstance(row, ScoredPair):
        return
    group = to_group(row, options.positive_threshold)
    if options.needs_negatives and not group.graded and not group.neg:
        need = "the objective needs negatives; scripts/mine_negatives.py adds them"
        raise RowError(f'"neg" is empty or missing, and {need}')
    for side, documents, scores in (
        ("pos", group.pos, group.pos_scores),
        ("neg", group.neg, group.neg_scores),
    ):
        if options.needs_scores and documents and scores is None:
            raise RowError(
                f'"{side}_scores" is missing, and the objective learns a teacher\'s scores; '
                "scripts/score_with_teacher.py writes them"
            )
