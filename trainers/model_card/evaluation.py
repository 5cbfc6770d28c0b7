"""Add an evaluation to a model card: a section with a table, and the model-index metadata."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from common.run_files import CARD_FILE
from encoders.kinds import KINDS
from evaluation.report.tables import UNDEFINED, counts, metric_cells, settings
from evaluation.results import BASE, TUNED, Results

# The next evaluation replaces everything between these, and nothing else.
START, END = "<!-- evaluation: written by Tandem -->", "<!-- end of evaluation -->"
SECTION = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)


def add_evaluation(folder: Path, results: Results) -> None:
    """Put an evaluation into the card of a saved model, replacing an earlier one.

    The section is found by its markers. In the metadata, results on the same data are replaced;
    what a person wrote elsewhere is kept.

    Args:
        folder: The model's folder, with a README.md.
        results: What was measured.

    Raises:
        ValueError: The folder has no README.md, or its metadata cannot be read.
    """
    file = folder / CARD_FILE
    card = ModelCard.load(file)
    card.text = with_section(card.text, "\n".join([START, *section(results), END]))
    new = eval_results(results)
    # An ``EvalResult.unique_identifier``; new may be empty, if all metrics are undefined.
    same = (
        KINDS[results.kind].hub_tasks[results.task][0],
        results.data,
        None,
        results.split,
        None,
    )
    kept = [old for old in card.data.eval_results or [] if old.unique_identifier != same]
    title = re.search(r"^# (.+)$", card.text, re.MULTILINE)
    card.data.model_name = card.data.model_name or (
        title[1].strip() if title else folder.resolve().name
    )
    card.data.eval_results = kept + new or None
    card.save(file)


def with_section(text: str, section: str) -> str:
    """Replace the section, or put it before the first second-level heading, or at the end."""
    if SECTION.search(text):
        return SECTION.sub(lambda _: section, text, count=1)
    heading = re.search(r"^## ", text, re.MULTILINE)
    at = heading.start() if heading else len(text)
    before = text[:at].rstrip("\n")
    return f"{before}\n\n{section}\n\n{text[at:]}"


def section(results: Results) -> list[str]:
    """The lines of the section."""
    lines = [
        "## Evaluation",
        "",
        f"{results.task.capitalize()} on {as_code(results.data)} ({counts(results)}), "
        f"measured on {results.created[:10]}."
        + (f" Settings: {as_code(settings(results))}." if results.settings else ""),
        "",
        *table(results),
    ]
    if results.first_stage is not None:
        lines += ["", "Compared with the first stage, whose candidates it reranked:", ""]
        lines += table(results.first_stage)
    if results.fused is not None:
        lines += ["", f"With fused scores, {as_code(results.fused.models[TUNED])}:", ""]
        lines += table(results.fused)
    reasons = {metric: found.undefined for metric, found in results.metrics.items()}
    undefined = [f"{metric} ({reason})" for metric, reason in reasons.items() if reason]
    if undefined:
        lines += ["", f"Undefined: {'; '.join(undefined)}."]
    if results.compared or results.first_stage or results.fused:
        lines += ["", "In brackets: the 95 % interval of the difference (paired bootstrap). p: "
                  "two-sided paired randomisation test."]  # fmt: skip
    return lines


def table(results: Results) -> list[str]:
    """A row for each metric."""
    counted = results.compared and results.task != "pairs"
    names = ["metric", "this model"]
    if results.compared:
        names = ["metric", as_code(results.models[BASE]), "this model", "difference", "p"]
    names += ["wins / losses / ties"] * counted
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for metric, found in results.metrics.items():
        cells = [metric, *metric_cells(found)]
        if counted:
            compared = found.comparison
            wins = compared and f"{compared.wins} / {compared.losses} / {compared.ties}"
            cells.append(wins or UNDEFINED)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def eval_results(results: Results) -> list[EvalResult]:
    """The model's own values, for the model-index."""
    task_type, task_name = KINDS[results.kind].hub_tasks[results.task]
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name,
            # The Hub distinguishes data sets by type and split, not by name.
            dataset_type=results.data,
            dataset_name=results.data,
            dataset_split=results.split,
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 6),
            metric_args=results.settings or None,
        )
        for metric, found in results.metrics.items()
        if (value := found.values[TUNED]) is not None
    ]


def as_code(value: Any) -> str:
    """A value as inline code that is safe in a cell of a Markdown table."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
