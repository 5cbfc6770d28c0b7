"""Train an embedder with sentence-transformers' trainer, for benchmarks/quality/quality.py."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed.contestants import sentence_transformers
from benchmarks.speed.results import BASE, quiet


def main(settings: str, pairs: str, length: str) -> None:
    """Train on pairs, and save to the settings' ``output_dir``."""
    quiet()
    lines = Path(pairs).read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    rows = [{"query": row["query"], "doc": row["pos_doc"]} for row in found]
    arguments: dict[str, Any] = json.loads(settings)
    trainer = sentence_transformers("contrastive", BASE, rows, int(length), arguments)
    trainer.train()
    trainer.model.save(arguments["output_dir"])


if __name__ == "__main__":
    main(*sys.argv[1:])
