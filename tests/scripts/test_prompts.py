"""A prompt of the recipe takes the place of the model's own; the other stays."""

from pathlib import Path
from typing import Any

import pytest

from encoders import Embedder, Reranker
from runs import train, write_format
from trainers import TandemArguments, build_run
from trainers.config.assembly import build_collator, open_model, read_rows

OWN = {"query": "cat ", "document": "dog "}


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """An embedder that has prompts."""
    Embedder.from_pretrained(tiny_bert, prompts=OWN).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, OWN),
        ({"query_prompt": "fish "}, {"query": "fish ", "document": "dog "}),
        ({"document_prompt": ""}, {"query": "cat ", "document": ""}),
    ],
)
def test_trained_with_and_saved(
    folder: Path, tmp_path: Path, given: dict[str, Any], expected: dict[str, str]
) -> None:
    recipe: dict[str, Any] = {"objective": "contrastive", "model_name_or_path": str(folder)}
    rows = write_format("pairs", tmp_path)
    args = TandemArguments(**recipe, **given, train_file=str(rows), output_dir=str(tmp_path / "a"))
    run = build_run(args)
    model = open_model(run)
    row = {**read_rows(run, args.train_file, "rejected.jsonl")[0], "epoch": 0, "row": 0}
    ids = build_collator(run, model)([row])["texts"]["input_ids"].tolist()
    texts = [expected["query"] + row["query"], expected["document"] + row["pos_doc"]]
    assert ids == model.tokenizer(texts, padding=True)["input_ids"]
    output = train(tmp_path / "b", **recipe, **given, train_file=rows, max_steps=1)
    saved = Embedder.from_pretrained(output).prompts
    assert {side: saved.get(side, "") for side in OWN} == expected


def test_of_a_reranker(tiny_classifier: Path, tmp_path: Path) -> None:
    Reranker.from_pretrained(tiny_classifier, prompts=OWN).save_pretrained(tmp_path / "model")
    output = train(
        tmp_path / "run",
        objective="bce",
        model_name_or_path=tmp_path / "model",
        train_file=write_format("groups", tmp_path),
        query_prompt="fish ",
        max_steps=1,
    )
    expected = {"query": "fish ", "document": "dog "}
    assert Reranker.from_pretrained(output).prompts == expected
