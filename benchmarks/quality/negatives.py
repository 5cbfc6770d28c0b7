"""Time and memory of mining hard negatives, against sentence-transformers.

    python benchmarks/quality/negatives.py
    python benchmarks/quality/negatives.py --rows 5000 --rounds 3 --record
    python benchmarks/quality/negatives.py --documents 200000 --rounds 1 --no_warm_up --record

Both mine the same number of negatives from the same ranks, with the same model, texts and lengths,
from an empty cache. Each runs in a process of its own, in alternating rounds, after a warm-up
round. The corpus is the rows' documents, or ``--documents`` short texts, runs of three words of
them. ``sentence-transformers, tuned`` runs with the settings that Tandem's scripts make
(common/hardware.py).

What is printed are medians, ratios to sentence-transformers, and the most memory that each process
held. Rows are those of ``make quickstart`` (data/docstrings), or of ``--data`` in any training
format. ``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from benchmarks.speed.results import BASE, PAIRS, device, new_parser, publish, quiet
from benchmarks.speed.turns import CONTESTANTS, TANDEM, THEIRS, answer, in_turns
from common.hardware import prepare_cpu
from encoders.opening.model_name import resolve_model
from loaders import ReadOptions, load_rows
from scripts.mine_negatives import main as mine

WORDS = 3  # of a short text


def main() -> None:
    """Start a process for each contestant, let them work in turns, print, record."""
    parser = new_parser(__doc__)
    parser.add_argument("--data", nargs="+", default=[PAIRS], help="rows in any training format")
    parser.add_argument("--model", default=BASE)
    parser.add_argument("--rows", type=int, default=1000, help="pairs of query and document")
    parser.add_argument("--documents", type=int, help="short texts to mine in (default: the rows')")
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--num_negatives", type=int, default=7)
    parser.add_argument("--last_rank", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no_warm_up", action="store_true", help="for work that takes minutes")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        answer(partial(prepare, args))
    else:
        compare(args)


def prepare(args: argparse.Namespace) -> Callable[[], list[float]]:
    """A contestant's work."""
    quiet()
    if args.contestant != THEIRS:
        prepare_cpu(training=True)
    kind = prepare_tandem if args.contestant == TANDEM else prepare_theirs
    work = kind(args, read_pairs(args), short_texts(args))

    def timed() -> list[float]:
        start = time.perf_counter()
        with redirect_stdout(StringIO()):
            work()
        return [time.perf_counter() - start]

    return timed


def read_pairs(args: argparse.Namespace) -> list[dict[str, str]]:
    """As many pairs as asked for, drawn by seed."""
    rows = load_rows(args.data, "positive_pair", ReadOptions())
    drawn = random.Random(0).sample(range(len(rows)), min(args.rows, len(rows)))
    return [{name: rows[at][name] for name in ("query", "pos_doc")} for at in drawn]


def short_texts(args: argparse.Namespace) -> list[str] | None:
    """Different runs of three words of all documents, as many as asked for; None: none asked."""
    if args.documents is None:
        return None
    rows = load_rows(args.data, "positive_pair", ReadOptions())
    words = [word for row in rows for word in row["pos_doc"].split()]
    places = random.Random(1).sample(range(len(words) - WORDS), len(words) - WORDS)
    found = dict.fromkeys(" ".join(words[at : at + WORDS]) for at in places)
    if len(found) < args.documents:
        raise SystemExit(f"these rows give {len(found):,} short texts; give more data")
    return list(found)[: args.documents]


def prepare_tandem(
    args: argparse.Namespace, pairs: list[dict[str, str]], texts: list[str] | None
) -> Callable[[], None]:
    """``scripts/mine_negatives.py``, from files to a file, the loading of the model included."""
    folder = Path(tempfile.mkdtemp(prefix="tandem-mining-"))
    lines = (json.dumps(pair, ensure_ascii=False) for pair in pairs)
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus:
        for at, text in enumerate(texts or []):
            corpus.write(json.dumps({"_id": str(at), "text": text}, ensure_ascii=False) + "\n")
    searched = ["--corpus", str(folder / "corpus.jsonl")] if texts else []

    def work() -> None:
        fresh = tempfile.mkdtemp(dir=folder)
        flags = ["--input", str(folder / "pairs.jsonl"), "--output", f"{fresh}/mined.jsonl"]
        flags += ["--cache_dir", f"{fresh}/cache", "--embedder", args.model, "--examples", "0"]
        flags += ["--rank_range", "2", str(args.last_rank)]
        flags += ["--num_negatives", str(args.num_negatives)]
        for side in ("query", "document"):
            flags += [f"--{side}_max_length", str(args.max_length)]
        if mine([*flags, *searched]):
            raise SystemExit("mining failed: see what it printed")

    return work


def prepare_theirs(
    args: argparse.Namespace, pairs: list[dict[str, str]], texts: list[str] | None
) -> Callable[[], None]:
    """``mine_hard_negatives``, from texts in memory to texts in memory, the model opened anew."""
    columns = {name: [pair[name] for pair in pairs] for name in ("query", "pos_doc")}
    rows = Dataset.from_dict(columns)

    def work() -> None:
        model = SentenceTransformer(str(resolve_model(args.model)), device=device())
        model.max_seq_length = args.max_length
        mine_hard_negatives(
            rows,
            model,
            corpus=texts,
            range_max=args.last_rank - 1,  # the positive, which is left out, is usually the first
            num_negatives=args.num_negatives,
            sampling_strategy="random",
            output_format="n-tuple",
            batch_size=64,
            verbose=False,
        )

    return work


def compare(args: argparse.Namespace) -> None:
    """Let the contestants mine: medians and ratios."""
    seconds: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, float] = {}
    for number, turn in enumerate(in_turns(args.only, range(args.rounds + (not args.no_warm_up)))):
        memory[turn.name] = turn.memory
        if args.no_warm_up or number >= len(args.only):
            seconds[turn.name] += turn.seconds
    rows = []
    middle = {name: statistics.median(taken) for name, taken in seconds.items()}
    for name, taken in middle.items():
        ratio = f"{middle[THEIRS] / taken:.2f} x" if THEIRS in middle else ""
        held = f"{memory[THEIRS] / memory[name]:.2f} x" if THEIRS in memory else ""
        rows.append((name, f"{taken:.1f}", ratio, f"{memory[name]:,.0f}", held))
    documents = f"{args.documents:,} short texts" if args.documents else "as many documents"
    publish(
        args,
        "negatives, large" if args.documents else "negatives",
        f"{args.model}, {args.rows:,} queries, {documents} of at most {args.max_length} "
        f"tokens, {args.num_negatives} negatives of ranks 2 to {args.last_rank}, from an empty "
        f"cache, the model opened anew. Medians of {args.rounds} turns.",
        ["", "seconds", "against sentence-transformers", "memory, MiB", "against it"],
        rows,
    )


if __name__ == "__main__":
    main()
