"""The report of a model: one page that needs nothing else, and its figures as files."""

import base64
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from common.run_files import FIGURES_FOLDER, REPORT_FILE
from evaluation.checkpoints import find_recipe
from evaluation.report.curves import Log
from evaluation.report.drawing import Drawing
from evaluation.report.figures import draw_figures
from evaluation.report.report_context import about, changed_queries, tables, training, verdict
from evaluation.report.wording import WORDS, Language
from evaluation.results import TUNED, Results

TEMPLATE = "report.html.j2"


def write_report(
    folder: Path,
    results: Results | None,
    log_history: Log | None,
    language: Language = "en",
) -> Path:
    """Write ``report.html`` and ``figures/*.png``, and return the path of the page.

    Args:
        folder: Where to.
        results: What was measured; None: the model was not measured.
        log_history: What its run logged (``trainer_state.json``), if that is known.
        language: Of the page and, if there is a font for it, of the figures.

    Raises:
        ValueError: There are neither results nor a log.
    """
    if results is None and not log_history:
        raise ValueError(f"{folder}: there is nothing to report: no results and no log of a run")
    words = WORDS[language]
    model = folder if results is None else Path(results.models[TUNED])
    drawings = draw_figures(results, log_history, language)
    for drawing in drawings:
        drawing.write(folder / FIGURES_FOLDER)
    page = template().render(
        words=words,
        title=words["title_run" if results is None else "title_results"],
        name=folder.resolve().name if results is None else results.models[TUNED],
        verdict=results and verdict(results, words),
        about=results and about(results, language),
        training=training(find_recipe(model), words),
        tables=[] if results is None else tables(results, words),
        drawings=[inlined(drawing) for drawing in drawings],
        changed_queries=[] if results is None else changed_queries(results, words),
    )
    path = folder / REPORT_FILE
    path.write_text(page, encoding="utf-8")
    return path


def template() -> Template:
    """The page without its content. Whatever is put into it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment.get_template(TEMPLATE)


def breakable(name: str) -> Markup:
    """A path that may be broken behind its slashes and underscores."""
    return Markup(re.sub("([/_])", r"\1<wbr>", str(escape(name))))


def inlined(drawing: Drawing) -> dict[str, str]:
    """A figure as the addresses of its two pictures, which hold the pictures themselves."""
    light, dark = (
        "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
        for svg in (drawing.svg, drawing.dark_svg)
    )
    return {"light": light, "dark": dark, "alt": drawing.alt, "caption": drawing.caption}
