"""Run scripts/train.py in this process on a tiny model, and files for it in every format."""

import json
import logging
import runpy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainers import OBJECTIVES

ROOT = Path(__file__).resolve().parents[2]
main: Callable[[list[str]], None] = runpy.run_path(str(ROOT / "scripts" / "train.py"))["main"]

# Documents of one topic share words that those of others lack, so that a tiny model can learn.
TOPICS = {
    "python csv file": ["read a csv file in python", "how to read a csv"],
    "cat mat dog": ["a cat sat on the mat", "the dog slept on the mat"],
    "capital France Japan": ["the capital of France is Paris", "the capital of Japan is Tokyo"],
    "天气 公园": ["今天天气很好", "我们去公园散步"],
    "感冒 发烧": ["感冒发烧应该吃什么药", "多喝水注意休息"],
    "检索 模型": ["如何用神经网络训练一个检索模型", "神经网络训练"],
}
TEXTS = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# The format whose rows an objective takes as they are; scored_groups have a teacher's scores.
FORMAT_OF = {
    "weighted_mse": "scored",
    "cosent": "scored",
    "contrastive": "pairs",
    "bce": "scored",
    "mse": "scored",
    "pairwise": "groups",
    "listwise": "groups",
    "lambda_loss": "groups",
    "listmle": "groups",
    "distillation": "scored_groups",
    "margin_mse": "scored_groups",
    "reranker_distillation": "scored_groups",
    "reranker_margin_mse": "scored_groups",
    "reranker_adr_mse": "scored_groups",
    "multi_vector_contrastive": "groups",  # with negatives, by which it is measured
    "multi_vector_distillation": "scored_groups",
    "multi_vector_margin_mse": "scored_groups",
}


def groups() -> Iterator[dict[str, Any]]:
    """Two groups of a topic, each with one positive and all other topics' documents."""
    for topic, documents in TOPICS.items():
        others = [text for other, texts in TOPICS.items() if other != topic for text in texts]
        for document in documents:
            yield {"query": topic, "pos": [document], "neg": others}


def scored() -> Iterator[dict[str, Any]]:
    """Graded pairs with weights: relevant, half relevant, not relevant."""
    for number, group in enumerate(groups()):
        yield {"query": group["query"], "doc": group["pos"][0], "rel": 1, "weight": 2.0}
        first, second = (group["neg"][(at + number) % len(group["neg"])] for at in (0, 5))
        half = f"{first} {group['pos'][0]} {first}"
        yield {"query": group["query"], "doc": half, "rel": 0.25, "weight": 0.5}
        yield {"query": group["query"], "doc": second, "rel": 0.0, "weight": 1.0}


def write_format(kind: str, folder: Path) -> Path:
    """Write the topics in one of the formats and return the file."""
    rows: list[dict[str, Any]]
    if kind == "tsv":
        grades = {1: "3", 0.25: "1", 0.0: "0"}
        lines = [f"{row['query']}\t{row['doc']}\t{grades[row['rel']]}" for row in scored()]
        file = folder / "rows.tsv"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return file
    if kind == "scored":
        rows = list(scored())
    elif kind == "pairs":
        rows = [{"query": group["query"], "pos_doc": group["pos"][0]} for group in groups()]
    elif kind == "groups":
        rows = list(groups())
    elif kind == "scored_groups":
        rows = [
            {**group, "pos_scores": [4.5], "neg_scores": [-3.0 - at for at in range(10)]}
            for group in groups()
        ]
    else:
        assert kind == "hits"
        rows = [
            {
                "query": group["query"],
                "hits": [
                    {"content": group["pos"][0], "label": 1},
                    *({"content": text, "label": 0} for text in group["neg"][:5]),
                ],
            }
            for group in groups()
        ]
    file = folder / f"{kind}.jsonl"
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text(text + "\n", encoding="utf-8")
    return file


def base_recipe(objective: str, models: dict[str, Path], dropout: bool = True) -> dict[str, Any]:
    """Objective, model and lengths; ``models`` are those of tests/scripts/train/conftest.py."""
    kind = OBJECTIVES[objective].model
    name = kind if dropout else f"{kind} without dropout"
    settings: dict[str, Any] = {"objective": objective, "model_name_or_path": models[name]}
    if kind != "reranker":
        return {**settings, "query_max_length": 16, "document_max_length": 32}
    return {**settings, "max_length": 48}


def six_steps(model: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """A recipe of six steps of batches of 3 from 12 rows, with a checkpoint after each second."""
    return {
        "objective": "contrastive",
        "model_name_or_path": model,
        "train_file": write_format("pairs", folder),
        "per_device_train_batch_size": 3,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        **more,
    }


WORDS = ("csv", "cat", "Paris", "fever", "python", "dog", *"天感北网猫药")


def write_set(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """A BEIR folder: documents d0, d1, ..., each the answer to query q0, q1, ...."""
    (folder / "qrels").mkdir(parents=True)
    for name, key, form in (("corpus", "d", "{} 文档 {}"), ("queries", "q", "{}?")):
        rows = [{"_id": f"{key}{n}", "text": form.format(w, n)} for n, w in enumerate(words)]
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(len(words)))
    (folder / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    return folder


def train(output_dir: Path, **settings: Any) -> Path:
    """Train by the real script; ``settings`` are the recipe. Returns the output folder."""
    recipe = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        **settings,
    }
    recipe = {name: str(v) if isinstance(v, Path) else v for name, v in recipe.items()}
    file = output_dir.parent / f"{output_dir.name}.json"
    file.write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")
    try:
        main(["--config", str(file)])
    finally:
        for handler in logging.getLogger().handlers[:]:
            if isinstance(handler, logging.FileHandler):
                logging.getLogger().removeHandler(handler)
                handler.close()
    return output_dir


def refused(capsys: pytest.CaptureFixture[str], output_dir: Path, **settings: Any) -> str:
    """Train by a recipe with a mistake; returns the one line that it earns."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train(output_dir, **settings)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def losses(output_dir: Path, name: str = "loss") -> list[float]:
    """What was logged as ``name``, in order."""
    state = json.loads((output_dir / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry[name] for entry in state["log_history"] if name in entry]


def losses_by_source(output_dir: Path) -> list[tuple[str, float]]:
    """The source of each step of a run on several, and what was logged as its loss."""
    state = json.loads((output_dir / "trainer_state.json").read_text(encoding="utf-8"))
    return [
        (name.removeprefix("loss_"), value)
        for entry in state["log_history"]
        for name, value in entry.items()
        if name.startswith("loss_")
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights of a saved model."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        if not any(part.startswith("checkpoint-") for part in file.relative_to(folder).parts):
            found |= {f"{file.parent.name}/{k}": v for k, v in load_file(file).items()}
    # Without the name of the folder itself, which differs from run to run.
    return {name.removeprefix(f"{folder.name}/"): value for name, value in found.items()}


def assert_same_weights(one: Path, other: Path, tolerance: float = 0.0) -> None:
    """Bit by bit, unless a tolerance is given."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert first
    for name, value in first.items():
        if tolerance:
            distance = (value - second[name]).abs().max().item()
            assert distance <= tolerance, f"{name} is {distance} apart"
        else:
            assert torch.equal(value, second[name]), name
