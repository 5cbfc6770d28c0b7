"""Choose how much a second score counts beside a model's own, and keep that in its folder.

    # an embedder and BM25: hybrid search
    python scripts/fuse.py --model outputs/embedding_contrastive \\
        --data data/docstrings/dev_pairs.jsonl
    # a reranker and its first stage
    python scripts/fuse.py --model outputs/reranker --first_stage outputs/embedding_contrastive \\
        --top_k 20 --data data/docstrings/dev_pairs.jsonl

The fused score is ``own + weight * other``. The weight that is best on the data goes into
fusion.json if it is significantly better than the model alone. Then scripts/evaluate.py shows the
model alone and fused, and /search of scripts/serve.py orders by the fused score. Choose it on data
that the model was not trained on, and not on those on which it is judged in the end.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from common.flags import exit_code, option, parse, required
from common.hardware import prepare_cpu
from common.run_files import FUSION_FILE
from encoders.kinds import KINDS, detect_kind
from evaluation.data.sets import PairData
from evaluation.measure import both_scores
from evaluation.metrics.comparison import Comparison
from evaluation.search.fusion import BM25_SCORES, Fusion, WeightTrial, settings_of, try_weights
from evaluation.settings import (
    EvaluationSettings,
    find_first_stage,
    inference_settings,
    open_model,
    read_data,
)

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class FuseSettings(EvaluationSettings):
    """Fuse."""

    model: str = required("The folder of an embedder or a reranker.")
    weight: float | None = option(
        None, "Write this weight untested; null: the best by the first metric."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not Path(self.model).expanduser().is_dir():
            raise ValueError(
                f"model: {self.model} is not a local folder, and the weight is written to the "
                "folder of the model; save a copy of the model first"
            )
        if self.weight is not None and not 0 < self.weight < float("inf"):
            raise ValueError(f"weight: must be above 0, got {self.weight:g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after a one-line error."""
    return exit_code(lambda: fuse_model(parse(FuseSettings, argv, __doc__)))


def fuse_model(args: FuseSettings) -> None:
    """Measure the weights on the data, show what they are worth, and keep the best."""
    state = PartialState(cpu=not torch.accelerator.is_available())
    prepare_cpu()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kind = detect_kind(args.model)
    # Rows too are searched whole: candidates would have no scores of a first stage.
    data = read_data(args, "embedder")
    if isinstance(data, PairData):
        raise ValueError("data: has judged pairs; give data with documents to rank for each query")
    first = find_first_stage(args, kind, data)
    if not KINDS[kind].retrieves and first is None:
        raise ValueError(
            "data: give each query's candidates without scores of a first stage; give documents "
            "to search, such as a BEIR folder"
        )
    model = open_model(args.model, kind, args)
    scores = both_scores(model, data, args.metrics, inference_settings(args), first)
    weights = None if args.weight is None else [0, args.weight]
    trials = list(try_weights(scores, data, args.metrics[0], weights))
    if not state.is_main_process:
        return
    name = BM25_SCORES if first is None else args.first_stage
    digest = BM25_SCORES if first is None else first.digest
    folder = Path(args.model).expanduser()
    best = max(trials, key=lambda trial: (trial.value, -trial.weight))
    show(trials, best, args.metrics[0], name)
    if args.weight is not None:
        best = trials[-1]
    elif best.to_own.sign <= 0:
        (folder / FUSION_FILE).unlink(missing_ok=True)  # of an earlier call
        print(
            f"no weight is significantly better than the model alone: {FUSION_FILE} is not written"
        )
        return
    if first is not None and best.to_other.sign <= 0:
        logger.warning(
            "the fused order is not significantly better than that of %s alone: the reranker "
            "adds nothing on these data", name
        )  # fmt: skip
    Fusion(best.weight, digest, name, settings_of(model)).write(folder)
    print(f"{folder / FUSION_FILE}: own score + {best.weight:.4g} × that of {name}")


def show(trials: Sequence[WeightTrial], best: WeightTrial, metric: str, name: str) -> None:
    """Print a row for each weight."""

    def interval(by: Comparison) -> str:
        return f"{by.difference:+.4f} [{by.low:+.4f}, {by.high:+.4f}]"

    table = Table("weight", metric, "to the model alone [95 % interval]", f"to {name} alone")
    for trial in trials:
        cells = [f"{trial.weight:.4g}", f"{trial.value:.4f}"]
        cells += [interval(trial.to_own), interval(trial.to_other)]
        table.add_row(*cells, style="bold" if trial is best else None)
    Console(width=120).print(table)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
