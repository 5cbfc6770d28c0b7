"""Add an evaluation to a model card: a section with a table, and the model-index metadata."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from common.run_files import CARD_FILE

UNDEFINED = "undefined"
Results = Mapping[str, Any]  # what scripts/evaluate.py writes to evaluation.json

# The next evaluation replaces everything between these, and nothing else.
START, END = "<!-- evaluation: written by Tandem -->", "<!-- end of evaluation -->"
SECTION = re.compile(re.escape(START) + ".*?" + re.escape(END), re.DOTALL)

# Task types of the Hub's model-index, by task and kind of model.
TASKS = {
    ("retrieval", "embedder"): ("information-retrieval", "Information retrieval"),
    ("reranking", "reranker"): ("cross-encoder-reranking", "Reranking"),
    ("pairs", "embedder"): ("semantic-similarity", "Semantic similarity"),
    ("pairs", "reranker"): ("cross-encoder-correlation", "Scores of judged pairs"),
}


def add_evaluation(folder: Path, results: Results) -> None:
    """Put an evaluation into the card of a saved model, replacing an earlier one.

    The section is found by its markers. In the metadata, results on the same data are replaced;
    what a person wrote elsewhere is kept.

    Args:
        folder: The model's folder, with a README.md.
        results: As in ``evaluation.json``.

    Raises:
        ValueError: The folder has no README.md, or its metadata cannot be read.
    """
    file = folder / CARD_FILE
    card = ModelCard.load(file)
    card.text = with_section(card.text, "\n".join([START, *section(results), END]))
    new = eval_results(results)
    # An ``EvalResult.unique_identifier``; new may be empty, if all metrics are undefined.
    same = (
        TASKS[results["task"], results["kind"]][0],
        results["data"],
        None,
        results.get("split"),
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
    metrics = results["metrics"]
    kinds = ("queries", "documents", "pairs")
    counts = ", ".join(f"{results[kind]:,} {kind}" for kind in kinds if kind in results)
    lines = [
        "## Evaluation",
        "",
        f"{results['task'].capitalize()} on {as_code(results['data'])} ({counts}), "
        f"measured on {results['created'][:10]}.",
    ]
    lines += ["", *table(results)]
    if "first_stage" in results:
        lines += ["", "Compared with the first stage, whose candidates it reranked:", ""]
        lines += table(results["first_stage"])
    undefined = {m: found["undefined"] for m, found in metrics.items() if "undefined" in found}
    if undefined:
        lines += [
            "",
            "Undefined: " + "; ".join(f"{m} ({why})" for m, why in undefined.items()) + ".",
        ]
    if "base" in results["models"] or "first_stage" in results:
        lines += ["", "In brackets: the 95 % interval of the difference (paired bootstrap). p: "
                  "two-sided paired randomisation test."]  # fmt: skip
    return lines


def table(results: Results) -> list[str]:
    """A row for each metric."""
    metrics = results["metrics"]
    if "base" not in results["models"]:
        rows = [
            f"| {metric} | {number(found['fine-tuned'])} |" for metric, found in metrics.items()
        ]
        return ["| metric | this model |", "|---|---:|", *rows]
    counted = results["task"] != "pairs"
    names = ["metric", as_code(results["models"]["base"]), "this model", "difference", "p"]
    names += ["wins / losses / ties"] * counted
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for metric, found in metrics.items():
        cells = [metric, number(found["base"]), number(found["fine-tuned"])]
        if "difference" in found:
            interval = f"[{found['low']:+.3f}, {found['high']:+.3f}]"
            cells.append(f"{found['difference']:+.3f} {interval}")
            cells.append("<0.001" if found["p_value"] < 0.001 else f"{found['p_value']:.3f}")
            if counted:
                cells.append(f"{found['wins']} / {found['losses']} / {found['ties']}")
        cells += [UNDEFINED] * (len(names) - len(cells))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def number(value: float | None) -> str:
    """To three decimals."""
    return UNDEFINED if value is None else f"{value:.3f}"


def eval_results(results: Results) -> list[EvalResult]:
    """The model's own values, for the model-index."""
    task_type, task_name = TASKS[results["task"], results["kind"]]
    return [
        EvalResult(
            task_type=task_type,
            task_name=task_name,
            # The Hub distinguishes data sets by type and split, not by name.
            dataset_type=results["data"],
            dataset_name=results["data"],
            dataset_split=results.get("split"),
            metric_type=metric,
            metric_name=metric,
            metric_value=round(float(found["fine-tuned"]), 6),
        )
        for metric, found in results["metrics"].items()
        if found["fine-tuned"] is not None
    ]


def as_code(value: Any) -> str:
    """A value as inline code that is safe in a cell of a Markdown table."""
    text = " ".join(str(value).split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
