"""Summarise a mining run: counts, ranks, removals, examples."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mining.data.corpus import Corpus
from mining.data.queries import Queries
from mining.miner import Mined
from mining.work import Blocks

# The last rank of each bar of the histogram.
_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
_SHOWN = 160  # characters of a text
_NEGATIVES = 4  # of an example


def summarize(mined: Iterable[Mined], num_negatives: int) -> dict[str, Any]:
    """Count what was mined and removed; queries were to get ``num_negatives`` each.

    Returns:
        ``queries``, ``without_positive``, ``with_too_few``, ``hard``, ``random`` (negatives),
        ``ranks`` (of hard ones: range -> count), ``looked_at`` and ``removed`` (candidates).
    """
    counts: Counter[str] = Counter()
    ranks: Counter[int] = Counter()
    removed: Counter[str] = Counter()
    for one in mined:
        counts["queries"] += 1
        counts["without_positive"] += one.positive is None
        few = one.positive is not None and len(one.negatives) < num_negatives
        counts["with_too_few"] += few
        counts["hard"] += one.hard
        counts["random"] += len(one.negatives) - one.hard
        counts["looked_at"] += one.looked_at
        removed.update(one.removed)
        ranks.update(bisect_left(_BOUNDS, each.rank or 0) for each in one.negatives[: one.hard])
    names = ("queries", "without_positive", "with_too_few", "hard", "random", "looked_at")
    return {
        **{name: counts[name] for name in names},
        "ranks": {_range(bar): ranks[bar] for bar in sorted(ranks)},
        "removed": dict(removed.most_common()),
    }


def _range(bar: int) -> str:
    if bar == len(_BOUNDS):
        return f"above {_BOUNDS[-1]}"
    first = _BOUNDS[bar - 1] + 1 if bar else 1
    return str(first) if first == _BOUNDS[bar] else f"{first}-{_BOUNDS[bar]}"


def show(summary: dict[str, Any], console: Console) -> None:
    """Print tables of a summary."""
    total = summary["hard"] + summary["random"]
    console.print(
        f"{total:,} negatives for {summary['queries']:,} queries: {summary['hard']:,} hard"
        f", {summary['random']:,} random ({_share(summary['random'], total)})"
    )
    for name, meaning in (
        ("with_too_few", "got fewer negatives than asked for, and are kept with those"),
        ("without_positive", "have no positive; they are kept, and nothing is mined for them"),
    ):
        if summary[name]:
            console.print(f"[bold]{summary[name]:,} queries[/] {meaning}")
    ranks = Table("rank", "negatives", "", title="Hard negatives by rank")
    highest = max(summary["ranks"].values(), default=1)
    for name, count in summary["ranks"].items():
        ranks.add_row(name, f"{count:,}", "█" * max(1, round(40 * count / highest)))
    looked_at = summary["looked_at"]
    removed = Table("removed as", "candidates", "share", title=f"{looked_at:,} candidates tried")
    for reason, count in summary["removed"].items():
        removed.add_row(reason, f"{count:,}", _share(count, looked_at))
    console.print(ranks)
    if summary["removed"]:
        console.print(removed)


def show_examples(
    queries: Queries, corpus: Corpus, blocks: Blocks, count: int, console: Console
) -> None:
    """Print queries, spread evenly over those that got negatives, with a few of these."""
    mined = np.flatnonzero([bool(one.negatives) for one in blocks])
    chosen = mined[np.linspace(0, len(mined) - 1, min(count, len(mined))).astype(int)]
    for query in chosen.tolist():
        one = blocks[query]
        # Some of both kinds: the first, and the last.
        last = len(one.negatives) - 1
        shown = sorted({*range(min(_NEGATIVES - 1, last)), last})
        places = [one.negatives[at].place for at in shown]
        positive, *texts = corpus.at([queries.positives(query)[0], *places])
        table = Table("", "score", "text")
        table.add_row("query", "", _short(queries.texts(query, query + 1)[0]), style="bold")
        table.add_row("positive", _number(one.positive), _short(positive))
        for at, text in zip(shown, texts, strict=True):
            _, rank, score = one.negatives[at]
            name = f"rank {rank}" if at < one.hard else "random"
            table.add_row(name, _number(score), _short(text))
        console.print(table)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…")


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.3f}"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"
