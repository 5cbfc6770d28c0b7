"""The whole truth about one GPU, without a network, in at most seven minutes.

    python benchmarks/gpu.py --record
    python benchmarks/gpu.py --parts architectures training

architectures  every architecture of the tests, in fp32 and bf16: outputs and gradients against the
               padded model
training       BERT-base (random weights), contrastive and bce, against sentence-transformers with
               sdpa and, if it is installed, flash-attn 2; with dropout and without; fp32, bf16
inference      encode and score against sentence-transformers, fp32 and bf16
decoder        LoRA on a decoder of Qwen3-0.6B's shape
sharding       FSDP2 on one GPU: the losses of a plain run
resume         a resumed run is bit-identical to an uninterrupted one
serving        requests a second of 1, 32 and 256 clients, against FastAPI and sentence-transformers

Each part is a process with a time limit of its own, so a part that fails or hangs costs only
itself; the rows that it printed before count. Texts are docstrings of installed packages. With
``--record`` the tables go into benchmarks/RESULTS.md. ``--tiny`` tries it all on any machine.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.on_gpu.rows import FAILED, PARTS
from benchmarks.speed.results import ROOT, new_parser, publish


def main() -> int:
    """Run the parts, one after the other; 1 if one failed."""
    parser = new_parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="small models and few texts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command("make_data", folder, args.tiny), cwd=ROOT, check=True)
        failed = [part for part in args.parts if not run_part(args, part, folder)]
    if failed:
        print(f"failed or stopped: {', '.join(failed)}")
    return 1 if failed else 0


def command(part: str, folder: str, tiny: bool) -> list[str]:
    """How a part is started."""
    tail = ["--tiny"] if tiny else []
    return [sys.executable, "-m", f"benchmarks.on_gpu.{part}", folder, *tail]


def run_part(args: Namespace, part: str, folder: str) -> bool:
    """Run one, show its rows, and whether it came to its end."""
    begun, rows = time.monotonic(), []
    log = Path(folder) / f"{part}.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command(part, folder, args.tiny),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        rows = list(rows_in_time(process, PARTS[part]))
    code = process.wait()
    told = f"{time.monotonic() - begun:.0f} s."
    if code != 0:
        told += f" **It was stopped or failed** (status {code}, limit {PARTS[part]} s)."
        print(log.read_text(encoding="utf-8")[-3000:], file=sys.stderr)
    if rows:
        columns, *cells = rows
        publish(args, f"GPU: {part}", told, columns, cells)
    return code == 0 and not any(FAILED in row for row in rows)


def rows_in_time(process: "subprocess.Popen[str]", seconds: float) -> Iterator[list[Any]]:
    """The rows that a part prints; when its time is over, it and all it has started is killed."""
    assert process.stdout is not None

    def stop(*_: object) -> None:
        os.killpg(process.pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    for line in process.stdout:
        if line.startswith("["):
            row = json.loads(line)
            print(*row, sep=" | ", flush=True)
            yield row
    signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit(main())
