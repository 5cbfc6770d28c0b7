"""What the parts of benchmarks/gpu.py share: limits, data, and how they print their rows."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.speed.rates import matmul_rate
from benchmarks.speed.results import quiet

# Seconds that each part may take; seven minutes with the data.
PARTS = {
    "architectures": 50,
    "training": 120,
    "inference": 50,
    "decoder": 40,
    "sharding": 40,
    "resume": 30,
    "serving": 70,
}
FAILED = "FAILED"
Rows = Iterator[list[Any]]  # the first one names the columns


class Given(NamedTuple):
    """What a part is given.

    Args:
        folder: With ``pairs.jsonl``, and models; for whatever else a part writes.
        tiny: Small sizes, to try the part on any machine.
    """

    folder: Path
    tiny: bool

    @property
    def device(self) -> str:
        """Where it runs."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    def rate(self, bf16: bool) -> float:
        """FLOP/s of a matrix product here."""
        return matmul_rate(torch.bfloat16 if bf16 else torch.float32, 64 if self.tiny else None)

    def pairs(self, count: int) -> list[dict[str, Any]]:
        """Rows: query, doc, rel."""
        lines = (self.folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        found = [rows[at % len(rows)] for at in range(count)]
        return [{"query": row["query"], "doc": row["pos_doc"], "rel": 1.0} for row in found]


def print_rows(part: Callable[[Given], Rows]) -> None:
    """Run a part in its process: print its rows as JSON as they come."""
    quiet()
    given = Given(Path(sys.argv[1]), "--tiny" in sys.argv)
    answers, sys.stdout = sys.stdout, sys.stderr  # nothing but rows on the standard output
    for row in part(given):
        print(json.dumps(row, ensure_ascii=False), file=answers, flush=True)


def row_or_failure(names: list[Any], work: Callable[..., list[Any]], *args: object) -> list[Any]:
    """A row of names and of what the work returns; where that fails, of the reason."""
    try:
        return [*names, *work(*args)]
    except Exception as error:
        return [*names, FAILED, f"{type(error).__name__}: {str(error)[:200]}"]


def peak_memory() -> str:
    """GiB of the GPU that were held at most since the last call."""
    if not torch.cuda.is_available():
        return ""
    most = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return f"{most:.2f}"
