"""What the parts of a report say, from results to words and numbers."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from evaluation.metrics.undefined import by_reason
from evaluation.report.wording import Words

Results = Mapping[str, Any]  # what scripts/evaluate.py writes to evaluation.json

OPENING = 300  # characters of a longer document that are seen at first
MINUS = str.maketrans("-", "−")


class Table(NamedTuple):
    """A table: rows of a metric's name and its cells, with a text before and after it."""

    heading: str
    columns: list[str]
    rows: list[dict[str, Any]]
    before: str = ""
    after: str = ""


# Numbers


def plain(value: float | None, words: Words | None = None) -> str:
    """0.788, with a real minus sign; the word for it where there is no value."""
    return words["undefined"] if value is None and words else f"{value:.3f}".translate(MINUS)


def signed(value: float) -> str:
    """+0.039, with a real minus sign."""
    return f"{value:+.3f}".translate(MINUS)


def interval(found: Mapping[str, float]) -> str:
    """+0.026 … +0.053."""
    return f"{signed(found['low'])} … {signed(found['high'])}"


def p_text(value: float) -> str:
    """A p-value to three places."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def tone(found: Mapping[str, float]) -> str:
    """ "good" or "bad" where the interval of a difference does not hold 0, or ""."""
    return "good" if found["low"] > 0 else "bad" if found["high"] < 0 else ""


# Parts of the page


def verdict(results: Results, words: Words) -> dict[str, Any]:
    """The answer, first in a few words and then in numbers, by the main metric."""
    metric = results["main_metric"]
    found = results["metrics"][metric]
    if "undefined" in found:
        sentence = words["verdict_undefined"].format(metric=metric, reason=found["undefined"])
        return {"headline": words["measured"], "tone": "", "sentences": [sentence]}
    values = {"metric": metric, "tuned": plain(found["fine-tuned"])}
    if "base" not in found:
        sentence = words["verdict_alone"].format(**values)
        return {"headline": words["measured"], "tone": "", "sentences": [sentence]}
    values |= {
        "base": plain(found["base"]),
        **{name: signed(found[name]) for name in ("difference", "low", "high")},
    }
    sentences = [words["verdict"].format(**values)]
    if "wins" in found:
        counts = {name: f"{found[name]:,}" for name in ("wins", "losses", "ties")}
        sentences.append(words["counts"].format(**counts))
    better = {"good": "better", "bad": "worse", "": "unclear"}[tone(found)]
    return {"headline": words[better], "tone": tone(found), "sentences": sentences}


def about(results: Results, words: Words) -> list[tuple[str, str]]:
    """What was measured on what."""
    models = results["models"]
    rows = [
        (words["kind"], words[results["kind"]]),
        *((words[name], models[name]) for name in ("fine-tuned", "base") if name in models),
        (words["task"], words["task_" + results["task"]]),
        (words["data"], results["data"]),
    ]
    counts = ("queries", "documents", "pairs")
    rows += [(words[name], f"{results[name]:,}") for name in counts if name in results]
    measured = datetime.fromisoformat(results["created"]).astimezone(UTC)
    return [*rows, (words["measured_on"], f"{measured:%Y-%m-%d %H:%M} UTC")]


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
    first = results.get("first_stage")
    found = [table(results, words["comparison"], words)]
    if first is not None:
        note = words["first_stage_note"].format(name=first["models"]["base"])
        found.append(table(first, words["first_stage"], words)._replace(before=note))
    return found


def table(results: Results, heading: str, words: Words) -> Table:
    """A row for each metric."""
    metrics = results["metrics"]
    reasons = [
        words["undefined_because"].format(names=names, reason=reason)
        for reason, names in by_reason(metrics).items()
    ]
    first = next(iter(metrics.values()))
    if "base" not in first:
        rows = [
            {"metric": metric, "cells": [cell(plain(found["fine-tuned"], words))]}
            for metric, found in metrics.items()
        ]
        columns = [words["metric"], words["fine-tuned"]]
        return Table(words["values"], columns, rows, after=" ".join(reasons))
    counted = ("wins", "losses", "ties") if results["task"] != "pairs" else ()
    names = ["metric", "base", "fine-tuned", "difference_interval", "p_value", *counted]
    rows = [
        {"metric": metric, "cells": compared(found, counted, words)}
        for metric, found in metrics.items()
    ]
    after = words["how_to_read" if counted else "how_to_read_pairs"]
    columns = [words[name] for name in names]
    return Table(heading, columns, rows, after=" ".join([*reasons, after]))


def compared(
    found: Mapping[str, Any], counted: Sequence[str], words: Words
) -> list[dict[str, str]]:
    """The cells of a comparison."""
    values = [cell(plain(found[name], words)) for name in ("base", "fine-tuned")]
    if "difference" not in found:
        return values + [cell(words["undefined"])] * (2 + len(counted))
    return [
        *values,
        cell(signed(found["difference"]), tone(found), interval(found)),
        cell(p_text(found["p_value"])),
        *(cell(f"{found[name]:,}") for name in counted),
    ]


def cell(text: str, tone: str = "", below: str = "") -> dict[str, str]:
    """A cell; what is sure is set in bold, in the colour of its tone."""
    return {"text": text, "below": below, "classes": f"sure {tone}" if tone else ""}


def moved(results: Results, words: Words) -> list[dict[str, Any]]:
    """The queries that gained and lost most; nothing where no base was measured."""
    return [
        {
            "heading": words[name],
            "none": words["none_" + name],
            "note": words["moved_note"].format(metric=results["main_metric"]),
            "tone": {"gained": "good", "lost": "bad"}[name],
            "queries": [
                {
                    "id": query["query_id"],
                    "text": query["query"],
                    "before": plain(query["base"]),
                    "after": plain(query["fine-tuned"]),
                    "relevant": query["relevant"] or words["no_text"],
                    "opening": query["relevant"][:OPENING]
                    if len(query["relevant"]) > OPENING
                    else "",
                }
                for query in results[name]
            ],
        }
        for name in ("gained", "lost")
        if name in results
    ]
