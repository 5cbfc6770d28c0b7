"""Texts and models for benchmarks/gpu.py: docstrings, their vocabulary, random weights."""

import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizer, Qwen3Config, Qwen3Model

from benchmarks.on_gpu.rows import Given
from preparation.docstrings.pairs import DocstringPair, locate, read_file, source_files

PAIRS = 4096
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 128}  # fmt: skip
NO_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
QWEN3 = {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072}  # fmt: skip
SMALL_QWEN3 = SMALL | {"num_key_value_heads": 2, "head_dim": 16}


def main(given: Given) -> None:
    """Write ``pairs.jsonl``, ``bert``, ``bert_without_dropout`` and ``decoder``."""
    texts = write_pairs(given)
    vocabulary = BertWordPieceTokenizer()
    vocabulary.train_from_iterator(texts, vocab_size=1_000 if given.tiny else 30_522)
    vocabulary.save_model(str(given.folder))
    tokenizer = BertTokenizer(str(given.folder / "vocab.txt"), model_max_length=512)
    torch.manual_seed(0)
    bert: dict[str, Any] = dict(SMALL) if given.tiny else {}
    for name, more in (("bert", {}), ("bert_without_dropout", NO_DROPOUT)):
        config = BertConfig(vocab_size=len(tokenizer), **bert, **more)
        BertModel(config).save_pretrained(given.folder / name)
        tokenizer.save_pretrained(given.folder / name)
    shape: dict[str, Any] = SMALL_QWEN3 if given.tiny else QWEN3
    special: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    decoder = Qwen3Config(vocab_size=len(tokenizer), **shape, **special)
    model: Any = Qwen3Model(decoder)
    model.to(torch.bfloat16).save_pretrained(given.folder / "decoder")
    tokenizer.save_pretrained(given.folder / "decoder")


def write_pairs(given: Given) -> list[str]:
    """First sentences of docstrings, and the rest of them; returns all texts."""
    found: list[DocstringPair] = []
    for package in ("accelerate",) if given.tiny else ("torch", "transformers"):
        root = locate(package)
        assert root is not None
        for module, path in source_files(root, package):
            found += read_file(package, module, path, Counter())
    random.Random(0).shuffle(found)
    pairs = [(pair.query, pair.document) for pair in found[: 128 if given.tiny else PAIRS]]
    rows = [{"query": query, "pos_doc": document} for query, document in pairs]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (given.folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return [text for pair in pairs for text in pair]


if __name__ == "__main__":
    main(Given(Path(sys.argv[1]), "--tiny" in sys.argv))
