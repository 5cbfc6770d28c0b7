"""The context of the report's template: results as words and formatted numbers."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from encoders.kinds import KINDS
from evaluation.metrics.comparison import Comparison
from evaluation.report.wording import WORDS, Language, Words
from evaluation.results import BASE, TUNED, MetricResult, Results

OPENING = 300  # characters of a longer document that are seen at first
MINUS = str.maketrans("-", "−")
TONES = {1: "good", -1: "bad", 0: ""}
HEADLINES = {1: "better", -1: "worse", 0: "unclear"}


class Table(NamedTuple):
    """A table: rows of a metric's name and its cells, with a text before and after it."""

    heading: str
    columns: list[str]
    rows: list[dict[str, Any]]
    before: str = ""
    after: str = ""


# Numbers


def plain(value: float | None, words: Words) -> str:
    """0.788, with a real minus sign; the word for it where there is no value."""
    return words["undefined"] if value is None else f"{value:.3f}".translate(MINUS)


def signed(value: float) -> str:
    """+0.039, with a real minus sign."""
    return f"{value:+.3f}".translate(MINUS)


def p_text(value: float) -> str:
    """A p-value to three places."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# Parts of the page


def verdict(results: Results, words: Words) -> dict[str, Any]:
    """The answer, first in a few words and then in numbers, by the main metric."""
    metric = results.main_metric
    found = results.metrics[metric]
    compared = found.comparison
    if found.undefined is not None:
        sentence = words["verdict_undefined"].format(metric=metric, reason=found.undefined)
        return {"headline": words["measured"], "tone": "", "sentences": [sentence]}
    tuned = plain(found.values[TUNED], words)
    if compared is None:
        sentence = words["verdict_alone"].format(metric=metric, tuned=tuned)
        return {"headline": words["measured"], "tone": "", "sentences": [sentence]}
    sentences = [
        words["verdict"].format(
            metric=metric,
            tuned=tuned,
            base=plain(found.values[BASE], words),
            difference=signed(compared.difference),
            low=signed(compared.low),
            high=signed(compared.high),
        )
    ]
    if compared.wins is not None:
        wins, losses, ties = win_counts(compared)
        sentences.append(words["counts"].format(wins=wins, losses=losses, ties=ties))
    sign = compared.sign
    return {"headline": words[HEADLINES[sign]], "tone": TONES[sign], "sentences": sentences}


def about(results: Results, language: Language) -> list[tuple[str, str]]:
    """What was measured on what."""
    words, models = WORDS[language], results.models
    measured = datetime.fromisoformat(results.created).astimezone(UTC)
    return [
        (words["kind"], KINDS[results.kind].labels[language]),
        *((words[which], models[which]) for which in (TUNED, BASE) if which in models),
        (words["task"], words["task_" + results.task]),
        (words["data"], results.data),
        *((words[name], f"{count:,}") for name, count in results.counts.items()),
        (words["measured_on"], f"{measured:%Y-%m-%d %H:%M} UTC"),
    ]


def training(recipe: Mapping[str, Any] | None, words: Words) -> list[tuple[str, str]]:
    """How the model was trained."""
    if recipe is None:
        return []
    steps = recipe["max_steps"]
    length = words["steps"].format(count=f"{steps:,}") if steps > 0 else None
    objective = recipe["objective"]
    if recipe["loss_args"]:
        objective += " " + json.dumps(recipe["loss_args"], ensure_ascii=False)
    rows = {
        "objective": objective,
        "base_model": recipe["model_name_or_path"],
        "train_file": listed(trained_on(recipe)),
        "eval_file": listed(recipe["eval_file"] or []),
        "length": length or words["epochs"].format(count=f"{recipe['num_train_epochs']:g}"),
        "batch_size": str(recipe["per_device_train_batch_size"]),
        "learning_rate": f"{recipe['learning_rate']:g}",
    }
    return [(words[name], value) for name, value in rows.items() if value]


def trained_on(recipe: Mapping[str, Any]) -> list[str]:
    """The files of all the sources of a run."""
    found: list[str] = []
    for source in recipe.get("train_files") or [{"path": recipe["train_file"]}]:
        files = source if isinstance(source, str) else source["path"]
        found += [files] if isinstance(files, str) else files
    return found


def listed(files: str | Sequence[str]) -> str:
    """One path, or several."""
    return files if isinstance(files, str) else ", ".join(files)


def tables(results: Results, words: Words) -> list[Table]:
    """The comparison, after that with the first stage where there is one."""
    first = results.first_stage
    found = [table(results, words["comparison"], words)]
    if first is not None:
        note = words["first_stage_note"].format(name=first.models[BASE])
        found.append(table(first, words["first_stage"], words)._replace(before=note))
    return found


def table(results: Results, heading: str, words: Words) -> Table:
    """A row for each metric."""
    reasons = [
        words["undefined_because"].format(names=names, reason=reason)
        for reason, names in results.undefined_by_reason().items()
    ]
    counted = ("wins", "losses", "ties") if results.task != "pairs" else ()
    names = ["metric", BASE, TUNED, "difference_interval", "p_value", *counted]
    if not results.compared:
        names, heading = ["metric", TUNED], words["values"]
    else:
        reasons.append(words["how_to_read" if counted else "how_to_read_pairs"])
    rows = [
        {"metric": metric, "cells": metric_cells(found, len(names) - 1, words)}
        for metric, found in results.metrics.items()
    ]
    return Table(heading, [words[name] for name in names], rows, after=" ".join(reasons))


def metric_cells(found: MetricResult, width: int, words: Words) -> list[dict[str, str]]:
    """A metric's cells, as many as ``width``."""
    cells = [cell(plain(value, words)) for value in found.values.values()]
    compared = found.comparison
    if compared is not None:
        interval = f"{signed(compared.low)} … {signed(compared.high)}"
        cells.append(cell(signed(compared.difference), TONES[compared.sign], interval))
        cells.append(cell(p_text(compared.p_value)))
        if compared.wins is not None:
            cells += map(cell, win_counts(compared))
    return cells + [cell(words["undefined"])] * (width - len(cells))


def win_counts(compared: Comparison) -> list[str]:
    """Wins, losses and ties."""
    return [f"{count:,}" for count in (compared.wins, compared.losses, compared.ties)]


def cell(text: str, tone: str = "", below: str = "") -> dict[str, str]:
    """A cell; a significant difference is bold, in the colour of its tone."""
    return {"text": text, "below": below, "classes": f"sure {tone}" if tone else ""}


def changed_queries(results: Results, words: Words) -> list[dict[str, Any]]:
    """The queries that gained and lost most; nothing where no base was measured."""
    return [
        {
            "heading": words[side],
            "none": words["none_" + side],
            "note": words["changed_note"].format(metric=results.main_metric),
            "tone": {"gained": "good", "lost": "bad"}[side],
            "queries": [
                {
                    "id": query.query_id,
                    "text": query.query,
                    "before": plain(query.base, words),
                    "after": plain(query.tuned, words),
                    "relevant": query.relevant or words["no_text"],
                    "opening": query.relevant[:OPENING] if len(query.relevant) > OPENING else "",
                }
                for query in queries
            ],
        }
        for side, queries in results.changed_queries.items()
    ]
