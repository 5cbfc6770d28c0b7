"""Training by Tandem and by sentence-transformers: same weights, rows, lengths and arguments."""

import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.multi_vector_encoder.losses import (
    MultiVectorMultipleNegativesRankingLoss,
)
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.losses import (
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
)
from transformers import Trainer

from encoders.opening.model_name import resolve_model
from trainers import parse_run
from trainers.config.assembly import build_collator, open_model, read_rows

OBJECTIVES = {
    "contrastive": "contrastive",
    "multi_vector": "multi_vector_contrastive",
    "similarity": "weighted_mse",
    "reranker": "bce",
}
OF_PAIRS = ("contrastive", "multi_vector")  # without relevances
Rows = list[dict[str, Any]]  # query, doc, rel


def tandem(task: str, model: str, rows: Rows, max_length: int, settings: dict[str, Any]) -> Trainer:
    """What ``scripts/train.py`` puts together.

    Args:
        task: A key of ``OBJECTIVES``.
        model: The model's folder or ``package://`` name.
        rows: To train on.
        max_length: Tokens after which a text (or a pair) is cut.
        settings: ``TrainingArguments``; their ``output_dir`` exists.
    """
    folder = Path(settings["output_dir"])
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            if task in OF_PAIRS:
                row = {"query": row["query"], "pos_doc": row["doc"]}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    recipe = settings | {
        "objective": OBJECTIVES[task],
        "model_name_or_path": model,
        "train_file": str(folder / "rows.jsonl"),
    }
    sides = ("max_length",) if task == "reranker" else ("query_max_length", "document_max_length")
    recipe |= dict.fromkeys(sides, max_length)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    run = parse_run(["--config", str(folder / "recipe.json")])
    opened = open_model(run)
    return run.build_trainer(
        model=opened,
        data_collator=build_collator(run, opened),
        train_dataset=read_rows(run, run.args.train_file, "rejected.jsonl"),
    )


def sentence_transformers(
    task: str,
    model: str,
    rows: Rows,
    max_length: int,
    settings: dict[str, Any],
    attention: str = "sdpa",
) -> Trainer:
    """Its trainer and the loss that corresponds, with its own defaults otherwise.

    Of the contrastive loss that is a scale of 20, which is Tandem's temperature of 0.05.

    Args:
        attention: transformers' ``attn_implementation``; others see ``tandem``.
    """
    folder = str(resolve_model(model))
    kwargs: dict[str, Any] = {"model_kwargs": {"attn_implementation": attention}}
    columns = {name: [row[name] for row in rows] for name in ("query", "doc")}
    if task not in OF_PAIRS:
        columns["score"] = [float(row["rel"]) for row in rows]
    if task == "reranker":
        scorer = CrossEncoder(folder, num_labels=1, max_length=max_length, **kwargs)
        return CrossEncoderTrainer(
            model=scorer,
            args=CrossEncoderTrainingArguments(**settings),
            train_dataset=Dataset.from_dict(columns),
            loss=BinaryCrossEntropyLoss(scorer),
        )
    if task == "multi_vector":
        backbone = Transformer(folder, max_seq_length=max_length, **kwargs)
        normalize = Normalize(module_input_name="token_embeddings")
        encoder = MultiVectorEncoder(modules=[backbone, MultiVectorMask(), normalize])
        return MultiVectorEncoderTrainer(
            model=encoder,
            args=MultiVectorEncoderTrainingArguments(**settings),
            train_dataset=Dataset.from_dict(columns),
            loss=MultiVectorMultipleNegativesRankingLoss(encoder),
        )
    embedder = SentenceTransformer(folder, **kwargs)
    embedder.max_seq_length = max_length
    loss = MultipleNegativesRankingLoss if task == "contrastive" else CosineSimilarityLoss
    return SentenceTransformerTrainer(
        model=embedder,
        args=SentenceTransformerTrainingArguments(**settings),
        train_dataset=Dataset.from_dict(columns),
        loss=loss(embedder),
    )
