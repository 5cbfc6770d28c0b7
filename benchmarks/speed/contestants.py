"""One training step by Tandem and by others: same weights, rows, batch, lengths, precision."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.losses import CosineSimilarityLoss, MultipleNegativesRankingLoss
from torch.nn import functional as F
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from encoders.opening.source import resolve_model
from trainers import parse_run
from trainers.config.assembly import build_collator, open_model, read_rows

LENGTHS = ("query_max_length", "document_max_length")


@dataclass
class Setting:
    """What all contestants are given alike.

    Args:
        task: "contrastive", "similarity" or "reranker".
        model: The model's folder or ``package://`` name.
        rows: query and document texts and a label, one dict each.
        batch_size: Rows in a step.
        max_length: Tokens after which a text (or a pair) is cut.
        bf16: Autocast to bf16.
    """

    task: str
    model: str
    rows: list[dict[str, Any]]
    batch_size: int
    max_length: int
    bf16: bool


class StepTimes(TrainerCallback):
    """Seconds between the ends of two optimiser steps: all that a step needs, its batch too."""

    def __init__(self) -> None:
        self.last: float | None = None
        self.seconds: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """What was before the first step is not counted, and neither is that step."""
        self.last = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Take the time."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.last is not None:
            self.seconds.append(now - self.last)
        self.last = now


def common(setting: Setting, folder: Path, steps: int) -> dict[str, Any]:
    """``TrainingArguments`` that everybody gets."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": setting.batch_size,
        "max_steps": steps,
        "bf16": setting.bf16,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
    }


def tandem(setting: Setting, folder: Path, steps: int, unpad_inputs: bool = True) -> Trainer:
    """What ``scripts/train.py`` puts together."""
    objective = {"contrastive": "contrastive", "similarity": "weighted_mse", "reranker": "bce"}
    recipe: dict[str, Any] = {
        **common(setting, folder, steps),
        "objective": objective[setting.task],
        "model_name_or_path": setting.model,
        "train_file": str(write_rows(setting, folder)),
        "unpad_inputs": unpad_inputs,
    }
    lengths = ("max_length",) if setting.task == "reranker" else LENGTHS
    recipe |= dict.fromkeys(lengths, setting.max_length)
    file = folder / "recipe.json"
    file.write_text(json.dumps(recipe))
    run = parse_run(["--config", str(file)])
    model = open_model(run)
    return run.build_trainer(
        model=model,
        data_collator=build_collator(run, model),
        train_dataset=read_rows(run, run.args.train_file, "rejected.jsonl"),
    )


def write_rows(setting: Setting, folder: Path) -> Path:
    """The rows in the format of Tandem's objective."""
    file = folder / "rows.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for row in setting.rows:
            if setting.task == "contrastive":
                row = {"query": row["query"], "pos_doc": row["doc"]}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    return file


def sentence_transformers(setting: Setting, folder: Path, steps: int) -> Trainer:
    """Its trainer and the loss that corresponds, with its own defaults otherwise."""
    model_folder = str(resolve_model(setting.model))
    columns: dict[str, list[Any]] = {
        "query": [row["query"] for row in setting.rows],
        "doc": [row["doc"] for row in setting.rows],
    }
    if setting.task != "contrastive":
        columns["score"] = [float(row["rel"]) for row in setting.rows]
    rows = Dataset.from_dict(columns)
    settings = common(setting, folder, steps)
    if setting.task == "reranker":
        scorer = CrossEncoder(model_folder, num_labels=1, max_length=setting.max_length)
        return CrossEncoderTrainer(
            model=scorer,
            args=CrossEncoderTrainingArguments(**settings),
            train_dataset=rows,
            loss=BinaryCrossEntropyLoss(scorer),
        )
    embedder = SentenceTransformer(model_folder)
    embedder.max_seq_length = setting.max_length
    contrastive = setting.task == "contrastive"
    loss = MultipleNegativesRankingLoss if contrastive else CosineSimilarityLoss
    return SentenceTransformerTrainer(
        model=embedder,
        args=SentenceTransformerTrainingArguments(**settings),
        train_dataset=rows,
        loss=loss(embedder),
    )


def plain_trainer(setting: Setting, folder: Path, steps: int) -> Trainer:
    """``transformers.Trainer`` with the few lines that a careful user would write."""
    model_folder = resolve_model(setting.model)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    cut = {"truncation": True, "max_length": setting.max_length, "return_tensors": "pt"}

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        queries, documents = [row["query"] for row in rows], [row["doc"] for row in rows]
        if setting.task == "reranker":
            labels = torch.tensor([float(row["rel"]) for row in rows])
            return {**tokenizer(queries, documents, padding=True, **cut), "labels": labels}
        batch = {"queries": tokenizer(queries, padding=True, **cut)}
        return batch | {"documents": tokenizer(documents, padding=True, **cut)}

    class PlainTrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            if setting.task == "reranker":
                labels = inputs.pop("labels")
                logits = model(**inputs).logits[:, 0].float()
                return F.binary_cross_entropy_with_logits(logits, labels)
            queries, documents = (embed(model, inputs[side]) for side in ("queries", "documents"))
            targets = torch.arange(len(queries), device=queries.device)
            return F.cross_entropy(queries @ documents.T / 0.05, targets)

    auto = AutoModelForSequenceClassification if setting.task == "reranker" else AutoModel
    head = {"num_labels": 1} if setting.task == "reranker" else {}
    return PlainTrainer(
        model=auto.from_pretrained(model_folder, dtype=torch.float32, **head),
        args=TrainingArguments(**common(setting, folder, steps), remove_unused_columns=False),
        data_collator=collate,
        train_dataset=Dataset.from_list(setting.rows),
    )


def embed(model: Any, inputs: Any) -> torch.Tensor:
    """Mean of the states at real tokens, at unit length."""
    mask = inputs["attention_mask"][..., None]
    states = model(**inputs).last_hidden_state
    return F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
