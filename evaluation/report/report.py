"""The report of a model: one page that needs nothing else, and its figures as files."""

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from common.run_files import FIGURES_FOLDER, REPORT_FILE
from evaluation.checkpoints import find_recipe
from evaluation.metrics.comparison import Comparison
from evaluation.report.curves import Log
from evaluation.report.drawing import Drawing
from evaluation.report.figures import FIGURES, draw_figures
from evaluation.report.tables import settings
from evaluation.report.wording import WORDS, Language, Words
from evaluation.results import BASE, TUNED, MetricResult, Results

MINUS = str.maketrans("-", "−")
TONES = {1: "good", -1: "bad", 0: ""}
HEADLINES = {1: "better", -1: "worse", 0: "unclear"}


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
    for name in FIGURES:  # of an earlier report
        (folder / FIGURES_FOLDER / f"{name}.png").unlink(missing_ok=True)
    for drawing in drawings:
        drawing.write(folder / FIGURES_FOLDER)
    # Whatever is put into the page is escaped.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    page = environment.get_template("report.html.j2").render(
        words=words,
        title=words["title_run" if results is None else "title_results"],
        name=folder.resolve().name if results is None else results.models[TUNED],
        results=results,
        verdict=results and verdict(results, words),
        about=results and about(results, words),
        training=training(find_recipe(model), words),
        tables=[] if results is None else tables(results, words),
        drawings=[inlined(drawing) for drawing in drawings],
    )
    path = folder / REPORT_FILE
    path.write_text(page, encoding="utf-8")
    return path


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


# Parts of the page


def verdict(results: Results, words: Words) -> dict[str, Any]:
    """The answer, first in a few words and then in numbers, by the main metric."""
    metric = results.main_metric
    found = results.metrics[metric]
    compared = found.comparison
    headline, tone = words["measured"], ""
    tuned = plain(found.values[TUNED], words)
    if found.undefined is not None:
        sentences = [words["verdict_undefined"].format(metric=metric, reason=found.undefined)]
    elif compared is None:
        sentences = [words["verdict_alone"].format(metric=metric, tuned=tuned)]
    else:
        headline, tone = words[HEADLINES[compared.sign]], TONES[compared.sign]
        sentence = words["verdict"].format(
            metric=metric,
            tuned=tuned,
            base=plain(found.values[BASE], words),
            difference=signed(compared.difference),
            low=signed(compared.low),
            high=signed(compared.high),
        )
        sentences = [sentence]
        if compared.wins is not None:
            wins, losses, ties = win_counts(compared)
            sentences.append(words["counts"].format(wins=wins, losses=losses, ties=ties))
    return {"headline": headline, "tone": tone, "sentences": sentences}


def about(results: Results, words: Words) -> list[tuple[str, str]]:
    """What was measured on what."""
    models = results.models
    measured = datetime.fromisoformat(results.created).astimezone(UTC)
    return [
        (words["kind"], words[results.kind]),
        *((words[which], models[which]) for which in (TUNED, BASE) if which in models),
        (words["task"], words["task_" + results.task]),
        (words["data"], results.data),
        *((words[name], f"{count:,}") for name, count in results.counts.items()),
        *([(words["settings"], settings(results))] if results.settings else []),
        (words["measured_on"], f"{measured:%Y-%m-%d %H:%M} UTC"),
    ]


def training(recipe: Mapping[str, Any] | None, words: Words) -> list[tuple[str, str]]:
    """How the model was trained."""
    if recipe is None:
        return []
    length = words["epochs"].format(count=f"{recipe['num_train_epochs']:g}")
    if recipe["max_steps"] > 0:
        length = words["steps"].format(count=f"{recipe['max_steps']:,}")
    objective = recipe["objective"]
    if recipe["loss_args"]:
        objective += " " + json.dumps(recipe["loss_args"], ensure_ascii=False)
    rows = {
        "objective": objective,
        "base_model": recipe["model_name_or_path"],
        "train_file": ", ".join(trained_on(recipe)),
        "eval_file": ", ".join(as_list(recipe["eval_file"] or [])),
        "length": length,
        "batch_size": str(recipe["per_device_train_batch_size"]),
        "learning_rate": f"{recipe['learning_rate']:g}",
    }
    return [(words[name], value) for name, value in rows.items() if value]


def trained_on(recipe: Mapping[str, Any]) -> list[str]:
    """The files of all the sources of a run."""
    found: list[str] = []
    for source in recipe.get("train_files") or [recipe["train_file"]]:
        found += as_list(source["path"] if isinstance(source, dict) else source)
    return found


def as_list(files: str | list[str]) -> list[str]:
    """A recipe names one path, or several."""
    return [files] if isinstance(files, str) else files


def tables(results: Results, words: Words) -> list[dict[str, Any]]:
    """The comparison, after that with the first stage where there is one."""
    found = [table(results, words["comparison"], words)]
    if (first := results.first_stage) is not None:
        note = words["first_stage_note"].format(name=first.models[BASE])
        found.append(table(first, words["first_stage"], words, before=note))
    if (fused := results.fused) is not None:
        note = words["fused_note"].format(name=fused.models[TUNED], other=fused.models[BASE])
        found.append(table(fused, words["fused"], words, before=note))
    return found


def table(results: Results, heading: str, words: Words, before: str = "") -> dict[str, Any]:
    """A row for each metric, with a text before and after them."""
    after = [
        words["undefined_because"].format(names=names, reason=reason)
        for reason, names in results.undefined_by_reason().items()
    ]
    counted = ("wins", "losses", "ties") if results.task != "pairs" else ()
    names = ["metric", BASE, TUNED, "difference_interval", "p_value", *counted]
    if not results.compared:
        names, heading = ["metric", TUNED], words["values"]
    else:
        after.append(words["how_to_read" if counted else "how_to_read_pairs"])
    return {
        "heading": heading,
        "before": before,
        "columns": [words[name] for name in names],
        "rows": {
            metric: metric_cells(found, len(names) - 1, words)
            for metric, found in results.metrics.items()
        },
        "after": " ".join(after),
    }


def metric_cells(found: MetricResult, width: int, words: Words) -> list[dict[str, str]]:
    """A metric's cells, as many as ``width``."""
    cells = [cell(plain(value, words)) for value in found.values.values()]
    compared = found.comparison
    if compared is not None:
        interval = f"{signed(compared.low)} … {signed(compared.high)}"
        cells.append(cell(signed(compared.difference), TONES[compared.sign], interval))
        cells.append(cell("< 0.001" if compared.p_value < 0.001 else f"{compared.p_value:.3f}"))
        if compared.wins is not None:
            cells += map(cell, win_counts(compared))
    return cells + [cell(words["undefined"])] * (width - len(cells))


def win_counts(compared: Comparison) -> list[str]:
    """Wins, losses and ties."""
    return [f"{count:,}" for count in (compared.wins, compared.losses, compared.ties)]


def cell(text: str, tone: str = "", below: str = "") -> dict[str, str]:
    """A cell; a significant difference is bold, in the colour of its tone."""
    return {"text": text, "below": below, "classes": f"sure {tone}" if tone else ""}


def plain(value: float | None, words: Words) -> str:
    """0.788, with a real minus sign; the word for it where there is no value."""
    return words["undefined"] if value is None else f"{value:.3f}".translate(MINUS)


def signed(value: float) -> str:
    """+0.039, with a real minus sign."""
    return f"{value:+.3f}".translate(MINUS)
