"""Build what a run is measured by: on eval_file at its evaluations, on guard_file at a merge."""

from collections.abc import Sequence

from encoders.kinds import KINDS
from evaluation.data.resolve import open_data
from evaluation.data.sets import RetrievalData
from evaluation.measure import Evaluator
from evaluation.metrics.pairs import pair_statistics
from evaluation.metrics.ranking import DEFAULT_METRICS, check_metrics
from evaluation.search.distributed import InferenceSettings
from trainers.config.assembly import read_options
from trainers.run import Run


def build_evaluator(run: Run) -> Evaluator | None:
    """The metrics of a run's evaluations, beside the loss.

    Raises:
        ValueError: A metric that does not exist, or that ``eval_file`` does not allow.
    """
    args = run.args
    if not args.eval_file or args.eval_metrics == []:
        check_best_metric(run, [])
        return None
    evaluator = _evaluator_on(run, args.eval_file, args.eval_corpus, "rejected_eval_rows.jsonl")
    check_best_metric(run, evaluator.metrics)
    return evaluator


def build_guard(run: Run) -> Evaluator | None:
    """The metrics of ``guard_file``, on which a merge with the base must not be worse than it."""
    if not run.args.guard_file:
        return None
    return _evaluator_on(run, run.args.guard_file, None, "rejected_guard_rows.jsonl")


def _evaluator_on(run: Run, files: Sequence[str], corpus: str | None, rejected: str) -> Evaluator:
    args = run.args
    inference = InferenceSettings(
        bf16=args.bf16,
        query_max_length=args.query_max_length,
        document_max_length=args.document_max_length,
    )
    with args.main_process_first(desc="reading evaluation data"):
        data = open_data(
            files,
            run.objective.model,
            read_options(run, rejected, evaluates=True),
            split=args.eval_split,
            corpus=corpus,
            as_groups=run.objective.shapes[0] != "scored_pair",
        )
    if isinstance(data, RetrievalData):
        if data.candidates is None and not KINDS[run.objective.model].retrieves:
            raise ValueError(
                f"{', '.join(files)}: a {KINDS[run.objective.model].labels['en']} in training is "
                "measured by how it orders each query's own documents, and no query has both "
                "relevant and irrelevant ones; give negatives (scripts/mine_negatives.py), or set "
                "eval_metrics to []"
            )
        names = args.eval_metrics or list(DEFAULT_METRICS)
        check_metrics(names)
    else:
        statistics = pair_statistics(data.judged())
        names = args.eval_metrics or list(statistics)
        for name in names:
            if name not in statistics:
                raise ValueError(
                    f"eval_metrics: {name!r} is not one of {', '.join(statistics)}, which scored "
                    "pairs with these labels give"
                )
    return Evaluator(data, names, inference)


def check_best_metric(run: Run, names: Sequence[str]) -> None:
    """Refuse a ``metric_for_best_model`` that no evaluation of the run will give."""
    wanted = run.args.metric_for_best_model
    known = ["loss", *run.objective.trainer.recorded_metrics, *names]
    if wanted is not None and wanted.removeprefix("eval_") not in known:
        raise ValueError(
            f"metric_for_best_model: {wanted!r} is not measured in this run; give one of "
            f"{', '.join(f'eval_{name}' for name in known)}"
        )
