"""Train an embedder with sentence-transformers' trainer, for benchmarks/quality/quality.py."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed.contestants import sentence_transformers
from benchmarks.speed.results import quiet
from encoders import Embedder


def main(settings: str, base: str, pairs: str, length: str) -> None:
    """Train on pairs with the model's prompts, and save to the settings' ``output_dir``."""
    quiet()
    lines = Path(pairs).read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    rows = [{"query": row["query"], "doc": row["pos_doc"]} for row in found]
    arguments: dict[str, Any] = json.loads(settings)
    prompts = Embedder.from_pretrained(base).prompts
    if prompts:
        arguments["prompts"] = {"query": prompts["query"], "doc": prompts["document"]}
    trainer = sentence_transformers("contrastive", base, rows, int(length), arguments)
    trainer.train()
    trainer.model.save(arguments["output_dir"])


if __name__ == "__main__":
    main(*sys.argv[1:])
