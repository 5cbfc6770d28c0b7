"""A zoo of tiny models as people have them: backbones of many families, chains of modules, limits.

Each maker writes a folder as sentence-transformers or transformers does, with random weights that
are large enough for every part of a model to show in what comes out.
"""

import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Module, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import (
    Dropout,
    LayerNorm,
    Pooling,
    WeightedLayerPooling,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

from tiny import TEXTS, make_tokenizer

LONG = "the cat sat on the mat and the dog slept in Tokyo " * 12
ENCODED = [*TEXTS[:7], "The CAPITAL of France", LONG, "a", "[PAD] the <pad> cat"]
PAIRS = [(TEXTS[0], TEXTS[1]), ("a", LONG), (TEXTS[6], TEXTS[5]), ("the capital", "b")]
PAIRS += [("the cat", "[PAD] dog <pad>")]
WIDTH = 32

Config = Callable[[dict[str, Any]], Any]
SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.3,
}
DECODER: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
T5: dict[str, Any] = {"d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
                      "dropout_rate": 0.0}  # fmt: skip
# Family -> its configuration, the id of the padding token, the kind of tokenizer.
FAMILIES: dict[str, tuple[Any, dict[str, Any], int, str]] = {
    "bert": (transformers.BertConfig, SIZES, 0, "bert"),
    "roberta": (transformers.RobertaConfig, SIZES, 1, "bert"),
    "xlm-roberta": (transformers.XLMRobertaConfig, SIZES, 1, "bert"),
    "camembert": (transformers.CamembertConfig, SIZES, 1, "bert"),
    "mpnet": (transformers.MPNetConfig, SIZES, 1, "bert"),
    "distilbert": (
        transformers.DistilBertConfig,
        {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "dropout": 0.0,
         "attention_dropout": 0.0, "seq_classif_dropout": 0.0, "max_position_embeddings": 64,
         "initializer_range": 0.3}, 0, "bert",
    ),
    "electra": (transformers.ElectraConfig, {**SIZES, "embedding_size": 16}, 0, "bert"),
    "deberta-v2": (
        transformers.DebertaV2Config,
        {**SIZES, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"],
         "pooler_hidden_size": WIDTH, "pooler_dropout": 0.0}, 0, "bert",
    ),
    "modernbert": (
        transformers.ModernBertConfig,
        {**SIZES, "local_attention": 8, "layer_types": ["full_attention", "sliding_attention"],
         "initializer_cutoff_factor": 2.0, "cls_token_id": 2, "sep_token_id": 3}, 0, "bert",
    ),
    "longformer": (transformers.LongformerConfig, {**SIZES, "attention_window": 16}, 1, "bert"),
    "xmod": (transformers.XmodConfig, {**SIZES, "default_language": "en_XX"}, 1, "bert"),
    "luke": (transformers.LukeConfig, {**SIZES, "entity_vocab_size": 10, "entity_emb_size": 16,
                                       "use_entity_aware_attention": False}, 1, "bert"),
    "roberta-prelayernorm": (transformers.RobertaPreLayerNormConfig, SIZES, 1, "bert"),
    "data2vec-text": (transformers.Data2VecTextConfig, SIZES, 1, "bert"),
    "t5": (transformers.T5Config, T5, 0, "bert"),
    "mt5": (transformers.MT5Config, T5, 0, "bert"),
    "umt5": (transformers.UMT5Config, T5, 0, "bert"),
    "qwen3": (transformers.Qwen3Config, DECODER, 1, "words"),
    "llama": (transformers.LlamaConfig, DECODER, 1, "words"),
    "gemma3 bidirectional": (
        transformers.Gemma3TextConfig,
        {**DECODER, "use_bidirectional_attention": True, "sliding_window": 8,
         "layer_types": ["sliding_attention", "full_attention"]}, 1, "words",
    ),
    "embeddinggemma 2": (
        transformers.EmbeddingGemma2TextConfig,
        {**DECODER, "hidden_size": 16, "embedding_dim": WIDTH, "sliding_window": 8,
         "hidden_size_per_layer_input": 8, "global_head_dim": 16,
         "layer_types": ["sliding_attention", "full_attention"]}, 1, "words",
    ),
}  # fmt: skip
# Families whose models take no token_type_ids.
WITHOUT_TYPES = {"mpnet", "distilbert", "modernbert", "t5", "mt5", "umt5"}
ENCODERS = {
    "t5": transformers.T5EncoderModel,
    "mt5": transformers.MT5EncoderModel,
    "umt5": transformers.UMT5EncoderModel,
}


def words_in_order() -> list[str]:
    """The vocabulary of the tiny tokenizer, by id."""
    vocabulary = make_tokenizer().get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def word_tokenizer(limit: int, **special: Any) -> Any:
    """Words between <s> and nothing, as decoders have them; 0 <unk>, 1 <pad>, 2 <s>, 3 </s>."""
    words = [word for word in words_in_order() if not word.startswith("[")]
    vocabulary = {w: at for at, w in enumerate(["<unk>", "<pad>", "<s>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B:1", special_tokens=[("<s>", 2)]
    )
    known = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | special
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=limit, **known
    )


def tokenizer_of(family: str, limit: int = 64, **special: Any) -> Any:
    """A family's tokenizer; RoBERTa's kin have the padding token at 1."""
    _, _, pad, kind = FAMILIES[family]
    if kind == "words":
        return word_tokenizer(limit, **{"pad_token": "<pad>", **special})
    words = words_in_order()
    if pad == 1:
        words = [words[1], words[0], *words[2:]]
    vocabulary = {word: at for at, word in enumerate(words)}
    if family in WITHOUT_TYPES:
        special["model_input_names"] = ["input_ids", "attention_mask"]
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=limit, **special)


def backbone(
    folder: Path, family: str = "bert", labels: int | None = None, limit: int = 64, **changes: Any
) -> Path:
    """Write a plain backbone, or a classifier with so many labels."""
    kind, settings, pad, _ = FAMILIES[family]
    tokenizer = tokenizer_of(family, limit)
    given = {"vocab_size": len(tokenizer), "pad_token_id": pad, **settings, **changes}
    if labels is not None:
        given["num_labels"] = labels
    torch.manual_seed(0)
    if labels is not None:
        model = transformers.AutoModelForSequenceClassification.from_config(kind(**given))
    elif family in ENCODERS:
        model = ENCODERS[family](kind(**given))
    else:
        model = transformers.AutoModel.from_config(kind(**given))
    for name, weight in model.named_parameters():  # initialised too small to be seen, or to 1 and 0
        if weight.dim() == 1 or "classifier" in name or "score" in name:
            with torch.no_grad():
                weight.add_(0.1 * torch.randn(weight.shape))
    if family == "xmod":
        model.set_default_language("en_XX")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def embedder(
    folder: Path,
    base: Path,
    *after: Module,
    before: Sequence[Module] = (),
    pooling: Any = "mean",
    include_prompt: bool = True,
    max_seq_length: int | None = None,
    **settings: Any,
) -> Path:
    """Write a folder as sentence-transformers does: backbone, ``before``, pooling, ``after``."""
    first = Transformer(str(base), max_seq_length=max_seq_length)
    modules = [first, *before, Pooling(WIDTH, pooling, include_prompt), *after]
    truncate = settings.pop("truncate_dim", None)
    model = SentenceTransformer(modules=modules, device="cpu", **settings)
    model.truncate_dim = truncate
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def dense(inputs: int, outputs: int, activation: nn.Module | None = None, **settings: Any) -> Dense:
    """A Dense module with weights of its own."""
    torch.manual_seed(inputs + outputs)
    return Dense(inputs, outputs, activation_function=activation or nn.Identity(), **settings)


def layer_norm() -> LayerNorm:
    """With weights that are not 1 and 0."""
    module = LayerNorm(WIDTH)
    with torch.no_grad():
        module.norm.weight.copy_(torch.linspace(0.5, 2, WIDTH))
        module.norm.bias.copy_(torch.linspace(-1, 1, WIDTH))
    return module


def layer_weights() -> WeightedLayerPooling:
    """Over the embeddings and both layers."""
    module = WeightedLayerPooling(WIDTH, num_hidden_layers=2, layer_start=0)
    with torch.no_grad():
        module.layer_weights.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return module


def change_json(path: Path, **changes: Any) -> None:
    """Replace keys of a JSON file; None takes one away."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    content = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def in_subfolder(folder: Path) -> Path:
    """Move the backbone to where release 1 and 2 put it."""
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in folder.iterdir():
        if file.is_file() and file.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            file.rename(inner / file.name)
    entries = json.loads((folder / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(entries))
    return folder


def limited(folder: Path, file: str, **content: Any) -> Path:
    """Write the file in which an old release states a limit."""
    (folder / "sentence_bert_config.json").unlink()
    (folder / file).write_text(json.dumps(content))
    return folder


PROMPTS = {"query": "python network ", "passage": "dog slept "}
# Name -> a maker of a sentence-transformers folder, given the folder and a plain BERT.
CHAINS: dict[str, Callable[[Path, Path], Path]] = {
    "two dense, wider and back": lambda f, b: embedder(
        f, b, dense(32, 48), dense(48, 32), Normalize()),
    "normalize before dense": lambda f, b: embedder(f, b, Normalize(), dense(32, 16, nn.Tanh())),
    "three dense, one with a residual": lambda f, b: embedder(
        f, b, dense(32, 32, nn.GELU(), use_residual=True), dense(32, 24, nn.ReLU(), bias=False),
        dense(24, 8)),
    "layer norm": lambda f, b: embedder(f, b, layer_norm(), Normalize()),
    "dropout": lambda f, b: embedder(f, b, Dropout(0.0), dense(32, 16)),
    "cls and mean": lambda f, b: embedder(f, b, Normalize(), pooling=("cls", "mean")),
    "mean and cls, in that order": lambda f, b: embedder(f, b, pooling=("mean", "cls")),
    "max, last and weighted mean": lambda f, b: embedder(
        f, b, dense(96, 12), pooling=("max", "weightedmean", "lasttoken")),
    "mean over the square root": lambda f, b: embedder(f, b, pooling="mean_sqrt_len_tokens"),
    "dense on tokens": lambda f, b: embedder(
        f, b, Normalize(), before=[dense(32, 32, nn.Tanh(), module_input_name="token_embeddings")]),
    "normalized tokens": lambda f, b: embedder(f, b, before=[Normalize("token_embeddings")]),
    "weighted layers": lambda f, b: embedder(
        f, backbone(b.parent / "layers", output_hidden_states=True), Normalize(),
        before=[layer_weights()]),
    "weighted layers that are not given": lambda f, b: embedder(f, b, before=[layer_weights()]),
    "prompts left out": lambda f, b: embedder(
        f, b, Normalize(), include_prompt=False, prompts=PROMPTS, default_prompt_name="query"),
    "a default prompt": lambda f, b: embedder(
        f, b, Normalize(), prompts=PROMPTS, default_prompt_name="passage",
        similarity_fn_name="dot"),
    "some of the dimensions": lambda f, b: embedder(f, b, Normalize(), truncate_dim=8),
    "limit by max_seq_length": lambda f, b: embedder(f, b, max_seq_length=11),
    "limit in an old file": lambda f, b: limited(
        embedder(f, b), "sentence_roberta_config.json", max_seq_length=9),
    "lower case by the layout": lambda f, b: limited(
        embedder(f, cased(b.parent / "cased")), "sentence_bert_config.json", max_seq_length=32,
        do_lower_case=True),
    "a backbone in a folder of its own": lambda f, b: in_subfolder(
        embedder(f, b, dense(32, 16), max_seq_length=20)),
}  # fmt: skip


def cased(folder: Path) -> Path:
    """A BERT whose tokenizer keeps capitals."""
    backbone(folder)
    tokenizer_of("bert", do_lower_case=False).save_pretrained(folder)
    return folder


def has_sentencepiece() -> bool:
    """Whether the package is installed."""
    return find_spec("sentencepiece") is not None


def by_sentence_transformers(folder: Path, texts: Sequence[str], **settings: Any) -> torch.Tensor:
    """Its embeddings."""
    model = SentenceTransformer(str(folder), device="cpu")
    return torch.tensor(model.encode(list(texts), **settings))


def by_cross_encoder(folder: Path, pairs: Sequence[tuple[str, str]]) -> torch.Tensor:
    """Its scores."""
    return torch.tensor(CrossEncoder(str(folder), device="cpu").predict(list(pairs)))
