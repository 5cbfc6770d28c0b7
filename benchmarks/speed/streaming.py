"""The cost of a large training file, streamed and copied: memory, disk, time to the first step.

    python benchmarks/speed/streaming.py --gigabytes 4 --record

A file of docstring pairs, each again and again under another query, is trained on for a few steps
by scripts/train.py, with ``streaming`` and without, each with an empty cache, and once more with
the cache as the run before has left it. Memory is the most that the process held, and counts the
parts of mapped files that it had touched. ``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import json
import re
import tempfile
import time
from datetime import datetime
from itertools import count
from pathlib import Path

from benchmarks.speed.results import BASE, PAIRS, new_parser, publish, train
from loaders import ReadOptions, load_rows


def main() -> None:
    """Write the file, train, print."""
    parser = new_parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the file")
    parser.add_argument("--data", default=PAIRS, help="pairs to make it of")
    parser.add_argument("--model", default=BASE)
    args = parser.parse_args()
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "pairs.jsonl"
        pairs = write(file, args)
        for name, more in {"streaming": ["--streaming", "true"], "copied": []}.items():
            for again in ("", ", once more"):
                costs = cost(file, Path(scratch) / name, args.model, more)
                rows.append([f"{name}{again}", *(f"{figure:,.0f}" for figure in costs)])
                print(*rows[-1], flush=True)
        size = file.stat().st_size / 1e9
    publish(
        args,
        "streaming",
        f"A JSON Lines file of {size:.2f} GB with {pairs:,} pairs; five steps of 8 pairs.",
        ["", "seconds until the rows are there", "peak memory, MiB", "cache, MiB"],
        rows,
    )


def write(file: Path, args: argparse.Namespace) -> int:
    """Write the pairs until the file is large enough; return how many they are."""
    pairs = load_rows(args.data, "positive_pair", ReadOptions())
    texts = [(pairs[at]["query"], pairs[at]["pos_doc"]) for at in range(len(pairs))]
    size = 0
    with file.open("w", encoding="utf-8") as stream:
        for number in count():
            query, document = texts[number % len(texts)]
            row = {"query": f"{query} {number}", "pos_doc": document}
            size += stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            if size >= args.gigabytes * 1e9:
                return number + 1
    raise AssertionError


def cost(file: Path, folder: Path, model: str, more: list[str]) -> tuple[float, float, float]:
    """Of a run with the cache ``folder``: seconds to the rows, peak memory and cache in MiB."""
    given = ["--objective", "contrastive", "--model_name_or_path", model]
    given += ["--train_file", str(file), "--max_steps", "5", *more]
    begun = time.time()
    done = train(given, HF_DATASETS_CACHE=str(folder))
    found = re.search(r"^(\S+ \S+) .*: \d+ rows", done.log, re.MULTILINE)
    assert found is not None
    ready = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").timestamp()
    cache = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return ready - begun, done.memory / 2**20, cache / 2**20


if __name__ == "__main__":
    main()
