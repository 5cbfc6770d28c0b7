"""Speed of a training step, or of encoding, against sentence-transformers on this machine.

    python benchmarks/speed/speed.py contrastive
    # also: similarity, reranker, multi_vector, encode, score
    python benchmarks/speed/speed.py encode --precisions fp32 --rounds 5 --record

Each contestant runs in a process of its own, set up as its users have it, in alternating rounds
after a warm-up round. ``sentence-transformers, tuned`` runs in a process with the settings that
Tandem's scripts make (common/hardware.py), which sentence-transformers does not make by itself.

Prints medians, ratios to sentence-transformers, tokens per second, the utilisation (FLOPs of the
real tokens / time / the rate of a large matrix product, measured after every turn), and the peak
memory of each process.

Rows are those of ``make quickstart`` (data/docstrings), or of ``--data`` in any training format.
``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import TrainerCallback

from benchmarks.speed.contestants import Rows, sentence_transformers, tandem
from benchmarks.speed.rates import forward_flops, lengths, matmul_rate
from benchmarks.speed.results import BASE, PAIRS, device, new_parser, publish, quiet
from benchmarks.speed.turns import CONTESTANTS, TANDEM, THEIRS, answer, in_turns
from common.hardware import prepare_cpu
from encoders import Embedder, Reranker
from encoders.opening.model_name import resolve_model
from loaders import ReadOptions, load_rows

SCORED = "data/docstrings/train_scored.jsonl"
DEFAULT_ROWS = {
    "contrastive": PAIRS,
    "similarity": SCORED,
    "reranker": SCORED,
    "multi_vector": PAIRS,
    "encode": PAIRS,
    "score": SCORED,
}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TRAINING = ("contrastive", "similarity", "reranker", "multi_vector")
COMPILED = "Tandem, torch_compile"  # of training steps, where --only asks for it


def main() -> None:
    """Start a process for each contestant, let them work in turns, print, record."""
    parser = new_parser(__doc__)
    parser.add_argument("task", choices=list(DEFAULT_ROWS))
    parser.add_argument("--data", nargs="+", help="rows in any training format")
    parser.add_argument("--model", default=BASE)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--precisions", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=768, help="texts or pairs to encode or score")
    among = [*CONTESTANTS, COMPILED]
    parser.add_argument("--only", nargs="+", choices=among, default=CONTESTANTS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        answer(partial(prepare, args))
    else:
        compare(args)


def prepare(args: argparse.Namespace) -> Callable[[], list[float]]:
    """A contestant's work in the first of the precisions."""
    quiet()
    if args.contestant != THEIRS:
        prepare_cpu(training=True)
    kind = prepare_training if args.task in TRAINING else prepare_inference
    return kind(args, args.precisions[0] == "bf16", read_rows(args))


def read_rows(args: argparse.Namespace) -> Rows:
    """As many rows as all the work needs, drawn by seed."""
    shape: Any = "positive_pair" if DEFAULT_ROWS[args.task] == PAIRS else "scored_pair"
    rows = load_rows(args.data or [DEFAULT_ROWS[args.task]], shape, ReadOptions())
    wanted = args.batch_size * (args.steps + 1) if args.task in TRAINING else args.texts
    drawn = random.Random(0).sample(range(len(rows)), min(wanted, len(rows)))
    found = [rows[at] for at in drawn]
    return [
        {
            "query": row["query"],
            "doc": row.get("doc", row.get("pos_doc")),
            "rel": row.get("rel", 1.0),
        }
        for row in found
    ]


class StepTimes(TrainerCallback):
    """Seconds between the ends of two optimiser steps: all that a step needs, its batch too."""

    def __init__(self) -> None:
        self.last: float | None = None
        self.seconds: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """What was before the first step is not counted, and neither is that step."""
        self.last = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Take the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.last is not None:
            self.seconds.append(now - self.last)
        self.last = now


def prepare_training(args: argparse.Namespace, bf16: bool, rows: Rows) -> Callable[[], list[float]]:
    """Trains some steps: seconds of each but the first."""
    settings = {
        "output_dir": tempfile.mkdtemp(prefix="tandem-speed-"),
        "per_device_train_batch_size": args.batch_size,
        "max_steps": args.steps + 1,
        "bf16": bf16,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "torch_compile": args.contestant == COMPILED,
    }
    build = tandem if args.contestant in (TANDEM, COMPILED) else sentence_transformers
    trainer = build(args.task, args.model, rows, args.max_length, settings)
    times = StepTimes()
    trainer.add_callback(times)

    def work() -> list[float]:
        times.seconds.clear()
        trainer.train()
        return list(times.seconds)

    return work


def prepare_inference(
    args: argparse.Namespace, bf16: bool, rows: Rows
) -> Callable[[], list[float]]:
    """Encodes or scores everything: seconds."""
    folder = str(resolve_model(args.model))
    pairs = [(row["query"], row["doc"]) for row in rows]
    texts = [document for _, document in pairs]
    ours, encode = args.contestant == TANDEM, args.task == "encode"
    common: dict[str, Any] = {"batch_size": args.batch_size, "show_progress_bar": False}
    kwargs: dict[str, Any] = {
        "model_kwargs": {"dtype": torch.bfloat16 if bf16 else torch.float32},
        "device": device(),
    }
    run: Callable[[], Any]
    if ours and encode:
        embedder = Embedder.from_pretrained(folder).to(device())
        run = partial(embedder.encode, texts, max_length=args.max_length, bf16=bf16)
    elif ours:
        reranker = Reranker.from_pretrained(folder).to(device())
        run = partial(reranker.score, pairs, max_length=args.max_length, bf16=bf16)
    elif encode:
        theirs = SentenceTransformer(folder, **kwargs)
        theirs.max_seq_length = args.max_length
        run = partial(theirs.encode, texts, **common)
    else:
        scorer = CrossEncoder(folder, num_labels=1, max_length=args.max_length, **kwargs)
        run = partial(scorer.predict, pairs, **common)

    def work() -> list[float]:
        begun = time.perf_counter()
        run()
        return [time.perf_counter() - begun]

    return work


def compare(args: argparse.Namespace) -> None:
    """Let the contestants work, and the machine multiply, as its rate changes with the hour."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)  # by contestant, precision
    memory: dict[tuple[str, str], float] = {}
    rates: dict[str, float] = {}
    # One precision after the other: every process keeps its memory to the end.
    for precision in args.precisions:
        reached = []
        turns = in_turns(args.only, range(args.rounds + 1), ["--precisions", precision])
        for number, turn in enumerate(turns):
            reached.append(matmul_rate(TYPES[precision]))
            memory[turn.name, precision] = turn.memory
            if number >= len(args.only):  # after the warm-up round
                seconds[turn.name, precision] += turn.seconds
        rates[precision] = statistics.median(reached)
    rows, training = read_rows(args), args.task in TRAINING
    found = lengths(args, rows)
    share = args.batch_size / len(rows) if training else 1.0
    tokens = sum(found) * share
    flops = forward_flops(args, found) * share * (3 if training else 1)
    middle = {key: statistics.median(taken) for key, taken in seconds.items()}

    def cells() -> Iterator[list[str]]:
        for (name, precision), taken in middle.items():
            same, full = (middle.get((THEIRS, p)) for p in (precision, "fp32"))
            yield [
                name,
                precision,
                f"{taken:.2f}",
                *(f"{other / taken:.2f} x" if other else "" for other in (same, full)),
                f"{tokens / taken:,.0f}",
                f"{flops / taken / rates[precision]:.0%}",
                f"{memory[name, precision]:,.0f}",
            ]

    what = f"batch {args.batch_size}" if training else f"{len(rows)} texts"
    products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in rates.items())
    publish(
        args,
        # bf16 is measured on other processors than fp32 alone.
        f"{args.task}, {' and '.join(args.precisions)}",
        f"{args.model}, {what}, at most {args.max_length} tokens, {tokens:,.0f} real tokens, "
        f"{flops / 1e9:,.0f} GFLOP; products reach {products}. "
        f"Medians of {min(map(len, seconds.values()))} turns.",
        [
            "",
            "precision",
            "seconds",
            "against sentence-transformers",
            "against it in fp32",
            "tokens/s",
            "of the product rate",
            "memory, MiB",
        ],
        cells(),
    )


if __name__ == "__main__":
    main()
