"""Tables of results in the terminal, and the cells of which tables of plain text are made."""

import json
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from evaluation.metrics.pairs import MetricValue
from evaluation.results import BASE, TUNED, ChangedQuery, MetricResult, Results

UNDEFINED = "undefined"
SHOWN = 100  # columns of a terminal that a query may take; a longer one ends in "…"


def show_comparison(
    results: Results,
    console: Console,
    queries: bool = False,
    columns: tuple[str, str] = (BASE, TUNED),
) -> None:
    """Print the metrics of the fine-tuned model, beside those of the base if it was measured.

    Lines are never wrapped, so that a file into which they are written stays readable.

    Args:
        results: What was measured.
        console: Where to.
        queries: Also print the queries that gained and lost most.
        columns: What the two models are called.
    """
    against = f" against {results.models[BASE]}" if results.compared else ""
    say(console, f"{results.kind} {results.models[TUNED]}{against}")
    say(console, f"{results.task} on {results.data}: {counts(results)}")
    if results.settings:
        say(console, f"settings: {settings(results)}")
    table = metric_table(results, columns)
    table.width = Measurement.get(console, console.options.update(width=10_000), table).maximum
    console.print(table, soft_wrap=True)
    say(console, *win_counts(results.metrics))
    for reason, names in results.undefined_by_reason().items():
        say(console, f"undefined: {names} ({reason})")
    if queries:
        for side, changed in results.changed_queries.items():
            say(console, *changed_queries(side, changed, results.main_metric))


def say(console: Console, *lines: str) -> None:
    """Print lines as they are: texts may hold what looks like markup."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def counts(results: Results) -> str:
    """The size of the data: "2,200 queries, 5,000 documents"."""
    return ", ".join(f"{count:,} {name}" for name, count in results.counts.items())


def settings(results: Results) -> str:
    """What was not at its default: "truncate_dim 64, top_k 20"."""
    given = results.settings.items()
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in given)


def metric_table(results: Results, columns: tuple[str, str] = (BASE, TUNED)) -> Table:
    """A row for each metric; bold where the interval of the difference does not hold 0."""
    names = (*columns, "difference [95 % interval]", "p")
    table = Table("metric")
    for name in names if results.compared else columns[1:]:
        table.add_column(Text(name), justify="right", no_wrap=True)
    for metric, found in results.metrics.items():
        sure = found.comparison is not None and found.comparison.sign != 0
        # As Text: square brackets would be markup.
        cells = [Text(cell) for cell in metric_cells(found)]
        table.add_row(metric, *cells, style="bold" if sure else None)
    return table


def metric_cells(found: MetricResult) -> list[str]:
    """A metric's values; with a base also the difference with its interval, and the p-value."""
    values = found.values.values()
    cells = [UNDEFINED if value is None else f"{value:.3f}" for value in values]
    if BASE not in found.values:
        return cells
    compared = found.comparison
    if compared is None:
        return [*cells, UNDEFINED, UNDEFINED]
    return [
        *cells,
        f"{compared.difference:+.3f} [{compared.low:+.3f}, {compared.high:+.3f}]",
        "<0.001" if compared.p_value < 0.001 else f"{compared.p_value:.3f}",
    ]


def win_counts(metrics: Mapping[str, MetricResult]) -> list[str]:
    """On how many queries each metric rose, fell and stayed equal."""
    compared = {metric: found.comparison for metric, found in metrics.items()}
    counted = {m: found for m, found in compared.items() if found and found.wins is not None}
    width = max(map(len, counted), default=0)
    return [
        f"{metric:<{width}}  {found.wins:,} wins, {found.losses:,} losses, {found.ties:,} ties"
        for metric, found in counted.items()
    ]


def changed_queries(side: str, queries: Sequence[ChangedQuery], metric: str) -> list[str]:
    """The queries that gained or lost most, a line each."""
    if not queries:
        return [f"no query {side}"]
    lines = [f"{side} most ({metric}, base to fine-tuned):"]
    for query in queries:
        text = Text(" ".join(query.query.split()))
        text.truncate(SHOWN, overflow="ellipsis")
        lines.append(f"  {query.base:.3f} {query.tuned:.3f}  {text.plain}")
    return lines


def show_checkpoints(figures: dict[str, dict[str, MetricValue]], best: str | None) -> None:
    """Print a row per checkpoint."""
    table = Table("checkpoint", *next(iter(figures.values())))
    reasons = []
    for name, values in figures.items():
        label = "final model" if name == "." else name
        cells = [
            "undefined" if isinstance(value, str) else f"{value:.4f}" for value in values.values()
        ]
        table.add_row(label, *cells, style="bold" if name == best else None)
        reasons += [
            f"{label}: {metric} is undefined ({value})"
            for metric, value in values.items()
            if isinstance(value, str)
        ]
    Console().print(table)
    for line in reasons:
        print(line)
