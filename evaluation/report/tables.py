"""What was measured, as tables in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from evaluation.metrics.undefined import by_reason

UNDEFINED = "undefined"
SHOWN = 100  # columns of a terminal that a query may take; a longer one ends in "…"


def show_comparison(results: Mapping[str, Any], console: Console, queries: bool = False) -> None:
    """Print the metrics of the fine-tuned model, beside those of the base if it was measured.

    Lines are never wrapped, so that a file into which they are written stays readable.

    Args:
        results: As in ``evaluation.json``.
        console: Where to.
        queries: Also print the queries that gained and lost most.
    """
    for line in heading(results):
        say(console, line)
    table = metric_table(results["metrics"])
    table.width = Measurement.get(console, console.options.update(width=10_000), table).maximum
    console.print(table, soft_wrap=True)
    for line in counts(results["metrics"]):
        say(console, line)
    for reason, names in by_reason(results["metrics"]).items():
        say(console, f"undefined: {names} ({reason})")
    if queries:
        for name in ("gained", "lost"):
            for line in moved(name, results.get(name) or [], results["main_metric"]):
                say(console, line)


def say(console: Console, line: str) -> None:
    """Print a line as it is: texts may hold what looks like markup."""
    console.print(Text(line), soft_wrap=True)


def heading(results: Mapping[str, Any]) -> list[str]:
    """What was measured on what."""
    models = results["models"]
    against = f" against {models['base']}" if "base" in models else ""
    kinds = ("queries", "documents", "pairs")
    numbers = ", ".join(f"{results[kind]:,} {kind}" for kind in kinds if kind in results)
    return [
        f"{results['kind']} {models['fine-tuned']}{against}",
        f"{results['task']} on {results['data']}: {numbers}",
    ]


def metric_table(metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each metric; bold where the interval of the difference does not hold 0."""
    compared = "base" in next(iter(metrics.values()))
    names = ("base", "fine-tuned", "difference [95 % interval]", "p")
    table = Table("metric")
    for name in names if compared else ("fine-tuned",):
        table.add_column(Text(name), justify="right", no_wrap=True)
    for metric, found in metrics.items():
        values = [number(found[name]) for name in ("base", "fine-tuned") if name in found]
        if not compared:
            table.add_row(metric, *values)
        elif "difference" not in found:
            table.add_row(metric, *values, UNDEFINED, UNDEFINED)
        else:
            table.add_row(
                metric,
                *values,
                # As Text: square brackets would be markup.
                Text(f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"),
                "<0.001" if found["p_value"] < 0.001 else f"{found['p_value']:.3f}",
                style="bold" if found["low"] > 0 or found["high"] < 0 else None,
            )
    return table


def number(value: float | None) -> str:
    """To three places."""
    return UNDEFINED if value is None else f"{value:.3f}"


def counts(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How many queries gained, lost and stayed, by metric."""
    counted = {metric: found for metric, found in metrics.items() if "wins" in found}
    width = max(map(len, counted), default=0)
    return [
        f"{metric:<{width}}  {found['wins']:,} wins, {found['losses']:,} losses, "
        f"{found['ties']:,} ties"
        for metric, found in counted.items()
    ]


def moved(name: str, queries: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    """The queries that gained or lost most, a line each."""
    if not queries:
        return [f"no query {name}"]
    lines = [f"{name} most ({metric}, base to fine-tuned):"]
    for query in queries:
        text = Text(" ".join(query["query"].split()))
        text.truncate(SHOWN, overflow="ellipsis")
        lines.append(f"  {query['base']:.3f} {query['fine-tuned']:.3f}  {text.plain}")
    return lines
