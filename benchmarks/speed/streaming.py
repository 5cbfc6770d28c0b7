"""The cost of a large training file, streamed and copied: memory, disk, time to the first step.

    python benchmarks/speed/streaming.py --gigabytes 4 --record

A file of docstring pairs, each again and again under another query, is trained on for a few steps
by scripts/train.py, with ``streaming`` and without, each with an empty cache, and once more with
the cache as the run before has left it. Memory is the most that the process held, and counts the
parts of mapped files that it had touched. ``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

from benchmarks.speed.results import BASE, machine, record, versions
from loaders import ReadOptions, load_rows

ROOT = Path(__file__).resolve().parents[2]


class Cost(NamedTuple):
    """Of one run: seconds from the start to the rows, peak memory and size of the cache, MiB."""

    seconds: float
    memory: float
    cache: float


def main() -> None:
    """Write the file, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--gigabytes", type=float, default=1.0, help="of the file")
    add("--data", default="data/docstrings/train_pairs.jsonl", help="pairs to make it of")
    add("--model", default=BASE)
    add("--record", action="store_true", help="write the table to RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "pairs.jsonl"
        rows = write(file, args)
        lines = [
            "## streaming",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}. A JSON Lines file of "
            f"{file.stat().st_size / 1e9:.2f} GB with {rows:,} pairs; five steps of 8 pairs.",
            "",
            "| | seconds until the rows are there | peak memory, MiB | cache, MiB |",
            "|---|---|---|---|",
        ]
        print("\n".join(lines[-2:]))
        for name, flags in {"streaming": ["--streaming", "true"], "copied": []}.items():
            for again in ("", ", once more"):
                cost = train(file, Path(scratch) / name, args.model, flags)
                lines.append(
                    f"| {name}{again} | {cost.seconds:.0f} | {cost.memory:,.0f} "
                    f"| {cost.cache:,.0f} |"
                )
                print(lines[-1], flush=True)
    if args.record:
        record("streaming", "\n".join(lines) + "\n")


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


def train(file: Path, folder: Path, model: str, flags: list[str]) -> Cost:
    """Run scripts/train.py with the cache ``folder``."""
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, "scripts/train.py", "--objective", "contrastive"]
        command += ["--model_name_or_path", model, "--train_file", str(file), "--output_dir", run]
        command += ["--max_steps", "5", "--save_strategy", "no", "--disable_tqdm", "true", *flags]
        log = Path(run) / "log"
        with log.open("w", encoding="utf-8") as output:
            environment = {**os.environ, "HF_DATASETS_CACHE": str(folder)}
            begun = time.time()
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, env=environment
            )
            _, status, usage = os.wait4(process.pid, 0)
        told = log.read_text(encoding="utf-8")
        if status != 0:
            raise SystemExit(f"the run has failed:\n{told[-3000:]}")
    found = re.search(r"^(\S+ \S+) .*: \d+ rows", told, re.MULTILINE)
    assert found is not None
    ready = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").timestamp()
    cache = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Cost(ready - begun, usage.ru_maxrss / 1024, cache / 2**20)


if __name__ == "__main__":
    main()
