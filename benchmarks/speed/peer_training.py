"""Train an embedder with sentence-transformers' trainer, for benchmarks/quality/quality.py."""

import json
import sys
from pathlib import Path

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.losses import MultipleNegativesRankingLoss

from benchmarks.speed.results import BASE, quiet
from encoders.opening.source import resolve_model


def main(settings: str, pairs: str, length: str) -> None:
    """Its loss with its default scale of 20, which is the recipe's temperature of 0.05."""
    quiet()
    rows = [json.loads(line) for line in Path(pairs).read_text(encoding="utf-8").splitlines()]
    model = SentenceTransformer(str(resolve_model(BASE)))
    model.max_seq_length = int(length)
    args = SentenceTransformerTrainingArguments(**json.loads(settings))
    SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list([{k: r[k] for k in ("query", "pos_doc")} for r in rows]),
        loss=MultipleNegativesRankingLoss(model),
    ).train()
    model.save(str(args.output_dir))


if __name__ == "__main__":
    main(*sys.argv[1:])
