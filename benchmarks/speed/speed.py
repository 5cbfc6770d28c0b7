"""Speed of a training step, or of encoding, against other tools on this machine.

    python benchmarks/speed/speed.py contrastive     # also: similarity, reranker, encode, score
    python benchmarks/speed/speed.py encode --precisions fp32 --rounds 5 --record

Each contestant runs in a process of its own, set up as its users have it, in alternating rounds
after a warm-up round: never two at once, so that a noisy neighbour slows all of them.
``sentence-transformers, tuned`` runs in a process with the settings that Tandem's scripts make
(common/hardware.py), which sentence-transformers does not make by itself.

Prints medians, ratios to sentence-transformers, tokens per second, the utilisation (FLOPs of the
real tokens / time / the rate of a large matrix product, measured after every turn), and the peak
memory of each process.

Rows are those of ``make quickstart`` (data/docstrings), or of ``--data`` in any training format.
``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from benchmarks.speed.contestants import (
    Setting,
    StepTimes,
    plain_trainer,
    sentence_transformers,
    tandem,
)
from benchmarks.speed.rates import arithmetic, lengths, product_rate
from benchmarks.speed.results import BASE, device, machine, quiet, record, versions
from common.hardware import prepare_cpu
from encoders import Embedder, Reranker
from encoders.opening.source import resolve_model
from loaders import ReadOptions, load_rows

DEFAULT_ROWS = {
    "contrastive": "data/docstrings/train_pairs.jsonl",
    "similarity": "data/docstrings/train_scored.jsonl",
    "reranker": "data/docstrings/train_scored.jsonl",
    "encode": "data/docstrings/train_pairs.jsonl",
    "score": "data/docstrings/train_scored.jsonl",
}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
TRAINING = ("contrastive", "similarity", "reranker")
THEIRS = "sentence-transformers"
TUNED = "sentence-transformers, tuned"
PLAIN = "transformers.Trainer"
TANDEM = "Tandem"
PADDED = "Tandem, unpad_inputs: false"
CONTESTANTS = [TANDEM, PADDED, THEIRS, TUNED, PLAIN]
# Padded, one forward over queries and documents takes minutes.
USUAL = [TANDEM, THEIRS, TUNED, PLAIN]


def main() -> None:
    """Start a process for each contestant, let them work in turns, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=list(DEFAULT_ROWS))
    parser.add_argument("--data", nargs="+", help="rows in any training format")
    parser.add_argument("--model", default=BASE)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--precisions", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=768, help="texts or pairs to encode or score")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=USUAL)
    parser.add_argument("--record", action="store_true", help="write the table to RESULTS.md")
    parser.add_argument("--contestant", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        work_in_turns(args, *args.contestant)
        return
    report = table(args, measure(args), read_rows(args))
    print(report)
    if args.record:
        record(title(args), report)


Key = tuple[str, str]  # contestant, precision


class Measured(NamedTuple):
    """Seconds of each timed step or pass, the most MiB held, and the machine's FLOP/s."""

    seconds: dict[Key, list[float]]
    memory: dict[Key, float]
    rates: dict[str, list[float]]


def measure(args: argparse.Namespace) -> Measured:
    """Contestants and the machine's product rate in turns, as the rate changes with the hour."""
    absent = {"similarity": {PLAIN}, "encode": {PLAIN, PADDED}, "score": {PLAIN, PADDED}}
    names = [name for name in args.only if name not in absent.get(args.task, set())]
    found = Measured({}, {}, {})
    # One precision after the other: every process keeps its memory to the end.
    for precision in args.precisions:
        processes = {(name, precision): start((name, precision)) for name in names}
        for turn in range(args.rounds + 1):
            for key, process in processes.items():
                taken, found.memory[key] = take_turn(process)
                print(f"round {turn}  {precision}  {key[0]}:", *(f"{s:.2f}" for s in taken))
                found.seconds[key] = (found.seconds[key] if turn > 1 else []) + taken
                found.rates.setdefault(precision, []).append(product_rate(TYPES[precision]))
        for process in processes.values():
            process.communicate()
    return found


def take_turn(process: subprocess.Popen[str]) -> tuple[list[float], float]:
    """Let a contestant work: its seconds, and the most MiB it has held so far."""
    assert process.stdin and process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("a contestant's process has ended (out of memory?): see what it printed")
    found = json.loads(answer)
    return found["seconds"], found["memory"]


def start(key: Key) -> subprocess.Popen[str]:
    """A contestant's process, which has nothing but its answers on its standard output."""
    command = [sys.executable, *sys.argv, "--contestant", *key]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def work_in_turns(args: argparse.Namespace, name: str, precision: str) -> None:
    """A contestant's process: for each line that comes in, work, and answer with the seconds."""
    answers, sys.stdout = sys.stdout, sys.stderr
    quiet()
    if name in (TUNED, TANDEM, PADDED):
        prepare_cpu(training=True)
    prepare = prepare_training if args.task in TRAINING else prepare_inference
    work = prepare(args, name, precision == "bf16", read_rows(args))
    for _ in sys.stdin:
        taken = work()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": taken, "memory": memory}), file=answers, flush=True)


def read_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """As many rows as all the work needs, drawn by seed."""
    shape: Any = "positive_pair" if args.task in ("contrastive", "encode") else "scored_pair"
    rows = load_rows(args.data or [DEFAULT_ROWS[args.task]], shape, ReadOptions())
    training = args.task in TRAINING
    wanted = args.batch_size * (args.steps + 1) if training else args.texts
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


def prepare_training(
    args: argparse.Namespace, name: str, bf16: bool, rows: list[dict[str, Any]]
) -> Callable[[], list[float]]:
    """Trains some steps: seconds of each but the first."""
    setting = Setting(args.task, args.model, rows, args.batch_size, args.max_length, bf16)
    folder = Path(tempfile.mkdtemp(prefix="tandem-speed-"))
    builders: dict[str, Callable[..., Any]] = {
        TANDEM: tandem,
        PADDED: partial(tandem, unpad_inputs=False),
        THEIRS: sentence_transformers,
        TUNED: sentence_transformers,
        PLAIN: plain_trainer,
    }
    trainer = builders[name](setting, folder, args.steps + 1)
    times = StepTimes()
    trainer.add_callback(times)

    def work() -> list[float]:
        times.seconds.clear()
        trainer.train()
        return list(times.seconds)

    return work


def prepare_inference(
    args: argparse.Namespace, name: str, bf16: bool, rows: list[dict[str, Any]]
) -> Callable[[], list[float]]:
    """Encodes or scores everything: seconds."""
    folder = str(resolve_model(args.model))
    pairs = [(row["query"], row["doc"]) for row in rows]
    texts = [document for _, document in pairs]
    ours, encode = name == TANDEM, args.task == "encode"
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


def title(args: argparse.Namespace) -> str:
    """Of a table: bf16 is measured on other processors than fp32 alone."""
    return f"{args.task}, {' and '.join(args.precisions)}"


def table(args: argparse.Namespace, measured: Measured, rows: list[dict[str, Any]]) -> str:
    """Medians, ratios and rates, in Markdown."""
    found = lengths(args, rows)
    training = args.task in TRAINING
    share = args.batch_size / len(rows) if training else 1.0
    tokens = sum(found) * share
    flops = arithmetic(args, found) * share * (3 if training else 1)
    rates = {precision: statistics.median(each) for precision, each in measured.rates.items()}
    reached = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in rates.items())
    middle = {key: statistics.median(taken) for key, taken in measured.seconds.items()}
    what = f"batch {args.batch_size}, " if training else f"{len(rows)} texts, "
    lines = [
        f"## {title(args)}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}.",
        f"{args.model}, {what}at most {args.max_length} tokens, {tokens:,.0f} real tokens, "
        f"{flops / 1e9:,.0f} GFLOP; products reach {reached}. "
        f"Medians of {min(map(len, measured.seconds.values()))} turns.",
        "",
        "| | precision | seconds | against sentence-transformers | against it in fp32 | tokens/s "
        "| of the product rate | memory, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, precision), taken in middle.items():
        same, full = (middle.get((THEIRS, p)) for p in (precision, "fp32"))
        ratios = (f"{other / taken:.2f} x" if other else "" for other in (same, full))
        of_rate = f"{flops / taken / rates[precision]:.0%}"
        cells = [name, precision, f"{taken:.2f}", *ratios, f"{tokens / taken:,.0f}", of_rate]
        cells.append(f"{measured.memory[name, precision]:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
