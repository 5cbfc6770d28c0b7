"""Render a validation report on the terminal and as an HTML page."""

from dataclasses import dataclass, field
from itertools import zip_longest

from jinja2 import Environment, StrictUndefined
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table


@dataclass(frozen=True)
class Section:
    """A table of texts; the first column names the rows.

    Attributes:
        bars: In a histogram, the number of each row that is drawn as a bar behind it.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    bars: list[int] = field(default_factory=list)

    def shares(self) -> list[float]:
        """The length of each bar, of the longest."""
        return [count / max(self.bars) for count in self.bars]


@dataclass
class Report:
    """What was found.

    Attributes:
        parts: Tables and histograms, in order.
        problems: What is wrong; each with places.
        notes: What is worth knowing.
    """

    title: str
    parts: list[Section] = field(default_factory=list)
    problems: list[tuple[str, list[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


_BAR = 40  # characters of the longest bar


def show(report: Report, console: Console) -> None:
    """Print the report."""
    console.print(f"[bold]{escape_markup(report.title)}[/bold]")
    for part in report.parts:
        table = Table(title=escape_markup(part.title), title_justify="left")
        for at, name in enumerate(part.columns):
            table.add_column(
                escape_markup(name), justify="right" if at else "left", overflow="fold"
            )
        bars = ["█" * round(_BAR * share) or ("▏" if share else "") for share in part.shares()]
        for row, bar in zip_longest(part.rows, bars):
            table.add_row(*map(escape_markup, row), *([bar] if part.bars else []))
        console.print(table)
    for note in report.notes:
        console.print(f"note: {escape_markup(note)}", highlight=False)
    for what, places in report.problems:
        console.print(f"[red]wrong:[/red] {escape_markup(what)}", highlight=False)
        for place in places:
            console.print(f"    {escape_markup(place)}", highlight=False)
    if not report.problems:
        console.print("no problems found")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ report.title }}</title>
<style>
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
table { border-collapse: collapse; margin: 0 0 1.5rem; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
td.bar { width: 20rem; } td.bar div { background: #4c78a8; height: .9rem; min-width: 1px; }
.wrong { border-left: 4px solid #c0392b; padding-left: 1rem; }
.fine { border-left: 4px solid #2e8b57; padding-left: 1rem; }
code { overflow-wrap: anywhere; }
</style></head>
<body>
<h1>{{ report.title }}</h1>
{% if report.problems %}
<div class="wrong"><h2>Wrong</h2><ul>
{% for what, places in report.problems %}
<li>{{ what }}
{% if places %}<ul>{% for place in places %}<li><code>{{ place }}</code></li>{% endfor %}</ul>
{% endif %}
</li>
{% endfor %}
</ul></div>
{% else %}
<p class="fine">Nothing is wrong.</p>
{% endif %}
{% if report.notes %}
<h2>Notes</h2><ul>{% for note in report.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endif %}
{% for part in report.parts %}
<h2>{{ part.title }}</h2>
<table>
<tr>{% for name in part.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% set shares = part.shares() %}
{% for row in part.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}
{% if shares %}
<td class="bar"><div style="width:{{ "%.1f" % (100 * shares[loop.index0]) }}%"></div></td>
{% endif %}
</tr>
{% endfor %}
</table>
{% endfor %}
</body>
</html>"""


def page(report: Report) -> str:
    """Render the report as one self-contained HTML page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_PAGE).render(report=report)
