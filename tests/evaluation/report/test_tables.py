"""Tables in the terminal, and in a file that they are written to."""

import io
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from evaluation.report.tables import show_comparison
from evaluation.results import Results
from measured import alone, changed, pairs, results


def printed(found: dict[str, Any], width: int = 80, queries: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show_comparison(Results.from_json(found), console, queries)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def test_the_table_in_the_terminal() -> None:
    lines = printed(results())
    assert lines == [
        "embedder outputs/商品检索 against package://some_package/model",
        "retrieval on data/商品/heldout: 2,200 queries, 5,000 documents",
        "┏━━━━━━━━━┳━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━┓",
        "┃ metric  ┃  base ┃ fine-tuned ┃ difference [95 % interval] ┃      p ┃",
        "┡━━━━━━━━━╇━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━┩",
        "│ ndcg@10 │ 0.748 │      0.788 │    +0.040 [+0.026, +0.053] │ <0.001 │",
        "│ map@10  │ 0.699 │      0.694 │    -0.005 [-0.024, +0.012] │  0.410 │",
        "└─────────┴───────┴────────────┴────────────────────────────┴────────┘",
        "ndcg@10  312 wins, 120 losses, 1,768 ties",
        "map@10   312 wins, 120 losses, 1,768 ties",
    ]


def test_nothing_wraps_in_a_narrow_place() -> None:
    assert printed(results(), width=20, queries=True) == printed(results(), 200, queries=True)


def test_changed_queries_are_listed_when_asked_for() -> None:
    found = results()
    found["gained"] = [changed("q1", "[bold]两行\n的查询[/bold]" + "长" * 80, 0.0, 1.0, "")]
    found["lost"] = []
    lines = printed(found, queries=True)[-3:]
    assert lines[0] == "gained most (ndcg@10, base to fine-tuned):"
    assert lines[1].startswith("  0.000 1.000  [bold]两行 的查询[/bold]长长")
    assert lines[1].endswith("…") and cell_len(lines[1]) <= 2 + 5 + 1 + 5 + 2 + 100
    assert lines[2] == "no query lost"
    assert "查询" not in "".join(printed(found))


def test_tables_of_a_model_alone_and_of_pairs() -> None:
    lines = printed(alone(), queries=True)
    assert lines[0] == "embedder outputs/商品检索"
    assert lines[5] == "│ ndcg@10 │      0.788 │" and len(lines) == 8
    lines = printed(pairs())
    assert lines[1] == "pairs on data/商品/heldout: 1,500 pairs"
    assert lines[-1].startswith("└")
