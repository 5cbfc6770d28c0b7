"""Decoders as backbones: trained by the script, saved in the layout that others read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModel, LlamaConfig, Qwen3Config

from encoders import Embedder, Reranker
from runs import TEXTS, losses, train, write_format
from tiny import make_tokenizer

PAIRS = [(TEXTS[0], text) for text in TEXTS]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
KINDS = {"qwen3": Qwen3Config, "llama": LlamaConfig}


def save_decoder(folder: Path, kind: str, padding_side: str = "right") -> Path:
    tokenizer = make_tokenizer(TEXTS)
    tokenizer.padding_side = padding_side
    config = KINDS[kind](**SIZES, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


REAL = pytest.param("stories260K", marks=pytest.mark.realdata)


@pytest.fixture(params=["qwen3 right", "qwen3 left", "llama right", REAL])
def decoder(
    request: pytest.FixtureRequest, tmp_path: Path, realdata: Callable[[str], Path]
) -> Path:
    if request.param == "stories260K":
        return realdata("stories260K")
    return save_decoder(tmp_path / "decoder", *request.param.split())


def run(tmp_path: Path, decoder: Path, objective: str, **settings: Any) -> Path:
    rows = write_format("pairs" if objective == "contrastive" else "groups", tmp_path)
    output = train(
        tmp_path / "run",
        objective=objective,
        model_name_or_path=decoder,
        train_file=rows,
        per_device_train_batch_size=8,
        train_group_size=4,
        learning_rate=3e-3,
        max_steps=40,
        **settings,
    )
    logged = losses(output)
    assert sum(logged[-8:]) < 0.9 * sum(logged[:8])
    return output


def test_an_embedder_with_prompts(decoder: Path, tmp_path: Path) -> None:
    prompt = "Instruct: find the document\nQuery: "
    lengths = {"query_max_length": 64, "document_max_length": 64}
    output = run(tmp_path, decoder, "contrastive", pooling="last", query_prompt=prompt, **lengths)
    model = Embedder.from_pretrained(output)
    assert (model.pooling, model.prompts["query"]) == ("last", prompt)
    theirs = SentenceTransformer(str(output), device="cpu")
    for name in ("query", "document"):
        ours = model.encode(TEXTS, prompt_name=name)
        found = torch.tensor(theirs.encode(TEXTS, prompt_name=name))
        torch.testing.assert_close(found, ours, atol=1e-5, rtol=0)


def test_a_reranker(decoder: Path, tmp_path: Path) -> None:
    output = run(tmp_path, decoder, "listwise", max_length=64)
    ours = Reranker.from_pretrained(output).score(PAIRS)
    theirs = torch.tensor(CrossEncoder(str(output), device="cpu").predict(PAIRS))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
