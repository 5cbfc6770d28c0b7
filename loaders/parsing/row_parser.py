"""Parse records into typed, validated rows."""

from collections import Counter
from typing import Any

from loaders.formats.records import Record
from loaders.options import ReadOptions
from loaders.parsing.columns import Columns
from loaders.parsing.fields import (
    RowError,
    as_number,
    as_relevance,
    as_scores,
    as_text,
    check_characters,
    passage_text,
    require,
    show,
)
from loaders.parsing.labels import Labels
from loaders.shapes.rows import CandidateGroup, PositivePair, Row, ScoredPair


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
        fields = record.fields
        if not isinstance(fields, dict):
            raise RowError(f"a row must be an object with named fields, got {show(fields)}")
        columns, fields = self.columns, self.columns.view(fields)
        if {"_id", "text"} <= fields.keys() and columns.find(fields, "query") is None:
            raise RowError(
                "a document or query of a BEIR folder, not a training row; make groups of "
                "the folder: scripts/prepare_data.py beir --help"
            )
        query = columns.require(fields, "query")
        text = as_text(fields[query], query)
        used = [query]
        prompt = self._prompt(fields, used)
        row = self._documents_of(record._replace(fields=fields), text, prompt, used)
        self._check_scores(row)
        for name, value in fields.items():
            if value is not None and not columns.is_used(name, used):
                self.unused[name] += 1
        return row

    def _documents_of(self, record: Record, text: str, prompt: str | None, used: list[str]) -> Row:
        """Parse the row, by the field that holds its documents."""
        columns, fields = self.columns, record.fields
        if columns.find(fields, "hits"):
            return self._hits(record, text, prompt, used)
        name = next(
            (n for field in ("pos", "pos_doc", "doc") if (n := columns.find(fields, field))), None
        )
        if name is None:
            for field in ("pos", "pos_doc", "doc"):
                if mapped := [name for name in columns.names[field] if name in columns.columns]:
                    columns.require(fields, field)  # raises, and names the column
                    assert mapped
            raise RowError(
                f'no document in the fields {show(list(fields))}: a row needs "pos", "hits", '
                '"pos_doc", or "doc" with "rel"'
            )
        if labels := self._labels_of(record, name):
            used += [name, labels]
            if isinstance(fields[name], list):
                return self._labeled_list(record, name, labels, text, prompt)
            return self._scored_pair(record, name, labels, text, prompt, used)
        if name in columns.names["pos"]:
            return self._group(record, text, prompt, used)
        return self._positive_pair(fields, name, text, prompt, used)

    def _labels_of(self, record: Record, name: str) -> str | None:
        """The column with the labels of the document, or list of documents, under ``name``.

        Required for a "doc". A column of positives has labels too where sentence-transformers
        mined it: one text with a label (labeled-pair), or a list of texts with a list of labels
        (labeled-list).
        """
        columns, fields = self.columns, record.fields
        if name in columns.names["doc"]:
            return columns.require(fields, "rel")
        if columns.negatives(fields) or columns.find(fields, "pos_scores"):
            return None
        several = isinstance(fields[name], list)
        for labels in columns.names["rel"]:
            value = fields.get(labels)
            teacher = several and labels == "score" and labels not in columns.columns
            fits = isinstance(value, list) if several else self.labels.may_be_one(value, record)
            if value is not None and fits and not teacher:
                return labels
        return None

    def _scored_pair(
        self, record: Record, doc: str, rel: str, query: str, prompt: str | None, used: list[str]
    ) -> ScoredPair:
        fields = record.fields
        weight = 1.0
        if name := self.columns.find(fields, "weight"):
            used.append(name)
            weight = as_number(fields[name], name, record.labels != "typed")
            if weight <= 0:
                raise RowError(f'"{name}" must be above 0, got {weight:g}')
        key = None
        if name := self.columns.find(fields, "key"):
            used.append(name)
            if not isinstance(fields[name], str | int | float):
                raise RowError(f'"{name}" must be a text or a number, got {show(fields[name])}')
            key = check_characters(str(fields[name]), name)
        text = self._passage(fields[doc], doc, doc)
        relevance = self.labels.relevance(fields[rel], rel, record)
        return ScoredPair(query, text, relevance, weight, key, prompt)

    def _positive_pair(
        self, fields: dict[str, Any], name: str, query: str, prompt: str | None, used: list[str]
    ) -> PositivePair:
        used.append(name)
        pos_doc = self._passage(fields[name], name, name)
        negatives = self._negatives(fields, used)
        self._check_negatives(negatives)
        return PositivePair(query, pos_doc, negatives, prompt)

    def _group(
        self, record: Record, query: str, prompt: str | None, used: list[str]
    ) -> CandidateGroup:
        fields = record.fields
        name = self.columns.require(fields, "pos")
        used.append(name)
        pos = self._documents(fields, name)
        neg = self._negatives(fields, used)
        pos_scores, neg_scores = self._both_scores(record, len(pos), len(neg), used)
        if not self.options.relevance_from_scores:
            if not pos:
                raise RowError(f'"{name}" is empty')
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
        name = self.columns.require(record.fields, "hits")
        used.append(name)
        hits = record.fields[name]
        if not isinstance(hits, list):
            raise RowError(f'"{name}" must be a list, got {show(hits)}')
        documents, relevances = [], []
        for at, hit in enumerate(hits):
            if not isinstance(hit, dict):
                raise RowError(f'"{name}[{at}]" must be an object, got {show(hit)}')
            text, made_of = passage_text(hit, f"{name}[{at}]")
            rel = require(hit, "rel")
            documents.append(text)
            relevances.append(self.labels.relevance(hit[rel], f"{name}[{at}].{rel}", record))
            self._count_others(hit, name, (*made_of, rel))
        return self._graded(query, documents, relevances, prompt)

    def _labeled_list(
        self, record: Record, name: str, labels: str, query: str, prompt: str | None
    ) -> CandidateGroup:
        """Parse parallel lists of documents and labels."""
        documents, given = self._documents(record.fields, name), record.fields[labels]
        if not isinstance(given, list) or len(given) != len(documents):
            count = len(given) if isinstance(given, list) else "no list of"
            raise RowError(f'"{labels}" has {count} labels for {len(documents)} texts in "{name}"')
        relevances = [
            self.labels.relevance(label, f"{labels}[{at}]", record)
            for at, label in enumerate(given)
        ]
        return self._graded(query, documents, relevances, prompt)

    def _graded(
        self, query: str, documents: list[str], relevances: list[float], prompt: str | None
    ) -> CandidateGroup:
        """Split documents into positives and negatives by their relevance."""
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
        name = self.columns.find(fields, "prompt")
        if name is None:
            return None
        used.append(name)
        if not isinstance(fields[name], str):
            raise RowError(f'"{name}" must be a text, got {show(fields[name])}')
        return check_characters(fields[name], name)

    def _negatives(self, fields: dict[str, Any], used: list[str]) -> list[str]:
        names = self.columns.negatives(fields)
        used += names
        return [text for name in names for text in self._documents(fields, name)]

    def _documents(self, fields: dict[str, Any], name: str) -> list[str]:
        """A list of texts, or of objects with a text; a single one counts as a list of one."""
        items = fields[name] if isinstance(fields[name], list) else [fields[name]]
        return [self._passage(item, f"{name}[{at}]", name) for at, item in enumerate(items)]

    def _passage(self, item: object, place: str, name: str) -> str:
        """A text, or the title and text of an object."""
        if not isinstance(item, dict):
            return as_text(item, place)
        text, made_of = passage_text(item, place)
        self._count_others(item, name, made_of)
        return text

    def _both_scores(
        self, record: Record, positives: int, negatives: int, used: list[str]
    ) -> tuple[list[float] | None, list[float] | None]:
        """The scores of the positives and of the negatives; ``scores`` may hold both."""
        pos, neg = (self._scores(record, field, used) for field in ("pos_scores", "neg_scores"))
        if pos and neg is None and pos[0] == "scores" and negatives:
            if len(pos[1]) == positives + negatives:
                return pos[1][:positives], pos[1][positives:]
        elif pos and pos[0] == "scores" and positives > 1:
            self.scored_positives += 1
        for found, count, side in ((pos, positives, "pos"), (neg, negatives, "neg")):
            if found and len(found[1]) != count:
                raise RowError(
                    f'"{found[0]}" has {len(found[1])} scores for {count} documents in "{side}"'
                )
        return (pos[1] if pos else None), (neg[1] if neg else None)

    def _scores(
        self, record: Record, field: str, used: list[str]
    ) -> tuple[str, list[float]] | None:
        name = self.columns.find(record.fields, field)
        if name is None:
            return None
        used.append(name)
        return name, as_scores(record.fields[name], name, record.labels != "typed")

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
