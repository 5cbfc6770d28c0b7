"""Memory of a step of contrastive training: padded, unpadded, with gradient caching.

    python benchmarks/speed/memory.py --record
    python benchmarks/speed/memory.py --max_length 64 --cached 1024 4096 --chunk_size 64

Each line is one step of scripts/train.py, in a process of its own, on the quick start's pairs; the
peak is that of the process (on a GPU: of PyTorch's allocator). The first line, a batch of one pair,
is what model, optimiser, rows and libraries need by themselves.
``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.speed.results import BASE, machine, record, versions

ROOT = Path(__file__).resolve().parents[2]
GPU_PEAK = (
    "import runpy, sys, torch; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], "
    "run_name='__main__'); print('PEAK', torch.cuda.max_memory_allocated())"
)


def main() -> None:
    """Run line after line, print the table, record it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="data/docstrings/train_pairs.jsonl")
    parser.add_argument("--model", default=BASE)
    parser.add_argument("--max_length", type=int, default=256, help="tokens of a document")
    parser.add_argument("--padded", nargs="*", type=int, default=[64], help="batch sizes")
    parser.add_argument("--plain", nargs="*", type=int, default=[64, 256], help="batch sizes")
    parser.add_argument("--cached", nargs="*", type=int, default=[64, 256, 1024, 4096])
    parser.add_argument("--chunk_size", type=int, default=32)
    parser.add_argument("--record", action="store_true", help="write the table to RESULTS.md")
    args = parser.parse_args()
    chunks = ["--gradient_cache_chunk_size", str(args.chunk_size)]
    wanted = [("nothing but one pair", 1, [])]
    wanted += [("padded", size, ["--unpad_inputs", "false"]) for size in args.padded]
    wanted += [("unpadded", size, []) for size in args.plain]
    wanted += [(f"unpadded, chunks of {args.chunk_size}", size, chunks) for size in args.cached]
    lines: list[str] = []
    least = 0.0
    for name, size, flags in wanted:
        peak = step(args, size, flags) / 2**20
        least = least or peak
        lines.append(f"| {name} | {size:,} | {peak:,.0f} | {peak - least:,.0f} |")
        print(lines[-1], flush=True)
    report = table(args, lines)
    print(report)
    if args.record:
        record(heading(args), report)


def step(args: argparse.Namespace, batch_size: int, flags: list[str]) -> int:
    """The most bytes held in one step."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--objective", "contrastive", "--model_name_or_path", args.model]
        given += ["--train_file", args.data, "--output_dir", folder, "--save_strategy", "no"]
        given += ["--document_max_length", str(args.max_length), "--query_max_length", "64"]
        given += ["--per_device_train_batch_size", str(batch_size), "--max_steps", "1"]
        given += ["--train_group_size", "2", "--disable_tqdm", "true", *flags]
        gpu = torch.cuda.is_available()
        script = ["-c", GPU_PEAK, "scripts/train.py"] if gpu else ["scripts/train.py"]
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [sys.executable, *script, *given], cwd=ROOT, stdout=output, stderr=output
            )
            _, status, usage = os.wait4(process.pid, 0)
        told = log.read_text(encoding="utf-8")
        if status != 0:
            raise SystemExit(f"batch size {batch_size} {flags} has failed:\n{told[-3000:]}")
        return int(told.split("PEAK")[-1]) if gpu else usage.ru_maxrss * 1024


def heading(args: argparse.Namespace) -> str:
    """The name of the table."""
    return f"memory, documents of {args.max_length} tokens"


def table(args: argparse.Namespace, lines: list[str]) -> str:
    """In Markdown."""
    head = [
        f"## {heading(args)}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions()}.",
        f"One step of contrastive training of {args.model} in fp32 on docstring pairs, documents "
        f"cut at {args.max_length} tokens: the most that the process held.",
        "",
        "| | batch | peak, MiB | more than one pair, MiB |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *lines]) + "\n"


if __name__ == "__main__":
    main()
