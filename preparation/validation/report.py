"""Render a validation report on the terminal and as an HTML page."""

from dataclasses import dataclass, field
from html import escape

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table


@dataclass(frozen=True)
class Bars:
    """A histogram: (label, count) of each bar."""

    title: str
    bars: list[tuple[str, int]]


@dataclass(frozen=True)
class Section:
    """A table of texts; the first column names the rows."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass
class Report:
    """What was found.

    Attributes:
        parts: Tables and histograms, in order.
        problems: What is wrong; each with places.
        notes: What is worth knowing.
    """

    title: str
    parts: list[Section | Bars] = field(default_factory=list)
    problems: list[tuple[str, list[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


_BAR = 40  # characters of the longest bar


def show(report: Report, console: Console) -> None:
    """Print the report."""
    console.print(f"[bold]{escape_markup(report.title)}[/bold]")
    for part in report.parts:
        table = Table(title=escape_markup(part.title), title_justify="left")
        if isinstance(part, Bars):
            longest = max(count for _, count in part.bars)
            table.add_column(overflow="fold")
            table.add_column("count", justify="right")
            table.add_column()
            for label, count in part.bars:
                bar = "█" * round(_BAR * count / longest) or ("▏" if count else "")
                table.add_row(escape_markup(label), f"{count:,}", bar)
        else:
            for at, name in enumerate(part.columns):
                table.add_column(
                    escape_markup(name), justify="right" if at else "left", overflow="fold"
                )
            for row in part.rows:
                table.add_row(*map(escape_markup, row))
        console.print(table)
    for note in report.notes:
        console.print(f"note: {escape_markup(note)}", highlight=False)
    for what, places in report.problems:
        console.print(f"[red]wrong:[/red] {escape_markup(what)}", highlight=False)
        for place in places:
            console.print(f"    {escape_markup(place)}", highlight=False)
    if not report.problems:
        console.print("no problems found")


_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
table { border-collapse: collapse; margin: 0 0 1.5rem; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
td.bar { width: 20rem; } td.bar div { background: #4c78a8; height: .9rem; min-width: 1px; }
.wrong { border-left: 4px solid #c0392b; padding-left: 1rem; }
.fine { border-left: 4px solid #2e8b57; padding-left: 1rem; }
code { overflow-wrap: anywhere; }
"""


def page(report: Report) -> str:
    """Render the report as one self-contained HTML page."""
    title = escape(report.title)
    body = [f"<h1>{title}</h1>", _html_problems(report)]
    if report.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
        body.append(f"<h2>Notes</h2><ul>{notes}</ul>")
    body += [_html_bars(part) if isinstance(part, Bars) else _html_table(part)
             for part in report.parts]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>"
    )


def _html_problems(report: Report) -> str:
    if not report.problems:
        return '<p class="fine">Nothing is wrong.</p>'
    items = []
    for what, places in report.problems:
        listed = "".join(f"<li><code>{escape(place)}</code></li>" for place in places)
        items.append(f"<li>{escape(what)}" + (f"<ul>{listed}</ul>" if listed else "") + "</li>")
    return f'<div class="wrong"><h2>Wrong</h2><ul>{"".join(items)}</ul></div>'


def _html_table(section: Section) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in section.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in section.rows
    )
    return f"<h2>{escape(section.title)}</h2>\n<table>\n<tr>{head}</tr>\n{rows}\n</table>"


def _html_bars(bars: Bars) -> str:
    longest = max(count for _, count in bars.bars)
    rows = "\n".join(
        f"<tr><td>{escape(label)}</td><td>{count:,}</td>"
        f'<td class="bar"><div style="width:{100 * count / longest:.1f}%"></div></td></tr>'
        for label, count in bars.bars
    )
    return f"<h2>{escape(bars.title)}</h2>\n<table>\n{rows}\n</table>"
