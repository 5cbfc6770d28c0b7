"""A guide model: its embeddings are those of ``encode``, made once, and they mask what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from collators import ContrastiveCollator
from encoders import Embedder, MultiVectorEncoder
from mining import guide as guides
from mining.cache.vectors import VectorCache
from mining.guide import encode_texts
from runs import TOPICS, losses, train
from tiny import save_backbone
from trainers import parse_run

ROWS: list[dict[str, Any]] = [
    {"query": "how to read a csv file", "pos_doc": "a cat", "negatives": ["今天天气很好", "a dog"]},
    {"query": "北京在哪里", "pos_doc": "北京是中国的首都", "negatives": []},
]


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With prompts of its own, and a cache of its own."""
    monkeypatch.setattr(guides, "CACHE_DIR", tmp_path / "cache")
    model = Embedder.from_pretrained(save_backbone(tmp_path / "backbone", seed=3))
    model.replace_prompts("find: ", "文档：")
    model.save_pretrained(tmp_path / "guide")
    return tmp_path / "guide"


def test_the_embeddings_are_those_of_the_guide_and_made_once(
    guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = encode_texts(str(guide), [ROWS, ROWS[:1]])
    model = Embedder.from_pretrained(guide)
    queries = [row["query"] for row in ROWS]
    documents = ["a dog", "a cat", "北京是中国的首都", "今天天气很好", "a cat"]
    for side, texts in (("query", queries), ("document", documents)):
        expected = model.encode(texts, prompt_name=side)
        torch.testing.assert_close(found(side, texts), expected, atol=1e-6, rtol=0)  # type: ignore[arg-type]

    def append(*_: Any) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(VectorCache, "append", append)
    again = encode_texts(str(guide), [ROWS])
    assert torch.equal(again("document", documents), found("document", documents))


def test_a_batch_brings_the_embeddings_of_its_texts(guide: Path) -> None:
    embeddings = encode_texts(str(guide), [ROWS])
    model = Embedder.from_pretrained(guide)
    collator = ContrastiveCollator(model.tokenizer, 32, 32, train_group_size=3, guide=embeddings)
    rows = [
        {**row, "prompt": None, "other_positives": [], "row": at, "epoch": 0}
        for at, row in enumerate(ROWS)
    ]
    batch = collator(rows)
    assert torch.equal(batch["guide_queries"], embeddings("query", [r["query"] for r in ROWS]))
    assert len(batch["guide_documents"]) == len(batch["documents"]) == 4
    own = batch["guide_documents"][batch["positives"]]
    assert torch.equal(own, embeddings("document", [row["pos_doc"] for row in ROWS]))


def test_a_run_leaves_out_what_the_guide_takes_for_false_negatives(
    guide: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    """By a margin of -2 no negative is one; by one of 2 each is, and nothing can be learned."""
    texts = [*TOPICS]  # each query's document is the next one's query, which is nearer to that
    rows = [{"query": one, "pos_doc": texts[at - 1]} for at, one in enumerate(texts)]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    shares = {}
    for margin in (-2.0, 0.0, 2.0):
        run = train(
            tmp_path / f"run{margin}",
            objective="contrastive",
            model_name_or_path=tiny_bert,
            train_file=data,
            eval_file=data,
            eval_strategy="epoch",
            guide_model=guide,
            loss_args={"absolute_margin": margin},
            max_steps=2,
            logging_steps=1,
        )
        shares[margin] = losses(run, "false_negatives")
        assert bool(losses(run, "idle_steps")) == (margin == 2)
    assert shares[-2.0] == [0, 0]
    assert 0 < sum(shares[0.0]) < 2
    assert shares[2.0] == [1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "guide_model: finds false negatives of contrastive objectives by a margin"),
        ({"objective": "cosent"}, "guide_model: finds false negatives of contrastive objectives"),
        ({"loss_args": {"absolut_margin": 0}}, "loss_args: absolut_margin: contrastive takes"),
        ({"loss_args": {"relative_margin": 2}}, "loss_args: relative_margin must be below 1"),
    ],
)
def test_wrong_recipes(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    recipe = {
        "objective": "contrastive",
        "model_name_or_path": "m",
        "train_file": "t.jsonl",
        "output_dir": str(tmp_path / "run"),
        "guide_model": "g",
        **settings,
    }
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe))
    with pytest.raises(ValueError, match=message):
        parse_run(["--config", str(file)])


def test_other_kinds_are_no_guides(tiny_bert: Path, tiny_classifier: Path, tmp_path: Path) -> None:
    late = tmp_path / "late"
    MultiVectorEncoder.from_pretrained(tiny_bert).save_pretrained(late)
    for folder, label in ((tiny_classifier, "reranker"), (late, "multi-vector encoder")):
        with pytest.raises(ValueError, match=f"is a {label}; give an embedder"):
            encode_texts(str(folder), [ROWS])
