"""Tiny models made on the spot: a word-piece tokenizer and a two-layer BERT, saved to a folder.

The vocabulary comes from the texts it is given, Chinese or English, so every test runs without
the network and trains in seconds.
"""

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import normalizers, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    PreTrainedModel,
)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXTS = (
    "how to read a csv file in python",
    "a cat sat on the mat while the dog slept",
    "the capital of France is Paris, the capital of Japan is Tokyo",
    "gradient descent updates the weights of a neural network",
    "fever, cough and headache are common symptoms of a cold",
    "今天天气很好，我们去公园散步。",
    "感冒发烧应该吃什么药？多喝水，注意休息。",
    "北京是中国的首都，东京是日本的首都。",
    "如何用神经网络训练一个检索模型",
    "猫坐在垫子上，狗在睡觉。",
)


def make_tokenizer(texts: Iterable[str] = TEXTS, max_length: int = 128) -> BertTokenizer:
    """Return a lower-casing BERT tokenizer to which every word of ``texts`` is one token.

    Other words are spelled with ``##`` pieces of the characters in ``texts`` and of ASCII, so
    only characters that were never seen become ``[UNK]``. The same texts give the same ids.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    letters = {letter for word in words for letter in word}
    letters |= set(string.ascii_lowercase + string.digits + string.punctuation)
    pieces = sorted(words | letters) + sorted(f"##{letter}" for letter in letters)
    vocabulary = {piece: index for index, piece in enumerate((*SPECIAL_TOKENS, *pieces))}
    return BertTokenizer(vocab=vocabulary, model_max_length=max_length)


def make_config(vocab_size: int, **changes: Any) -> BertConfig:
    """Return the configuration of a BERT with 2 layers, 2 heads and width 32."""
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
    }
    return BertConfig(**(settings | changes))


def save_backbone(
    folder: str | Path, texts: Iterable[str] = TEXTS, seed: int = 0, **changes: Any
) -> Path:
    """Save a plain Hugging Face backbone (``BertModel`` and tokenizer) and return its folder.

    ``changes`` are fields of ``BertConfig``, such as ``hidden_dropout_prob=0.0``.
    """
    return _save(BertModel, folder, texts, seed, changes)


def save_classifier(
    folder: str | Path, texts: Iterable[str] = TEXTS, seed: int = 0, **changes: Any
) -> Path:
    """Save a sequence classifier with one label and its tokenizer, and return its folder."""
    return _save(BertForSequenceClassification, folder, texts, seed, {"num_labels": 1} | changes)


def _save(
    model_class: type[PreTrainedModel],
    folder: str | Path,
    texts: Iterable[str],
    seed: int,
    changes: dict[str, Any],
) -> Path:
    tokenizer = make_tokenizer(texts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(make_config(len(tokenizer), **changes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)
