"""Opening a folder: limits, padding and what is refused, each in one sentence that names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

import zoo
from collators import PairCollator, ScoredPairCollator
from encoders import Embedder, Reranker
from encoders.opening.tokens import TokenWithoutEmbedding
from serving.engine.model import ServedModel
from serving.engine.tokenization import Truncation
from zoo import ENCODED, LONG, PAIRS, backbone, change_json, dense, embedder

OFFSET = ["roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xmod", "luke",
          "roberta-prelayernorm", "data2vec-text"]  # fmt: skip

PLAIN = PAIRS[:4]  # no padding token is part of a text


def refused(open_model: Callable[..., Any], folder: Path, *words: str) -> None:
    """One line that has all the words."""
    with pytest.raises(ValueError) as error:
        open_model(folder)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), error.value


# Limits


@pytest.mark.parametrize("family", OFFSET)
def test_positions_that_are_counted_from_the_padding_id(family: str, tmp_path: Path) -> None:
    folder = backbone(tmp_path / "model", family, limit=1_000_000)
    model = Embedder.from_pretrained(folder)
    assert model.max_length == 64  # of 66 positions
    assert model.encode([LONG * 2]).isfinite().all()
    with pytest.raises(ValueError, match="takes at most 64"):
        Embedder.from_pretrained(folder, max_length=65)
    scorer = Reranker.from_pretrained(
        backbone(tmp_path / "scorer", family, labels=1, limit=1_000_000)
    )
    assert scorer.max_length == 64
    assert scorer.score([("a", LONG * 2)]).isfinite().all()


@pytest.mark.parametrize("where", ["layout", "tokenizer", "processing", "positions"])
def test_the_smallest_limit_counts(where: str, tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), max_seq_length=40)
    stated: dict[str, tuple[str, dict[str, Any]]] = {
        "layout": ("sentence_bert_config.json", {"max_seq_length": 12}),
        "tokenizer": ("tokenizer_config.json", {"model_max_length": 12}),
        "processing": (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"max_length": 12}}},
        ),
        "positions": ("config.json", {}),
    }
    file, content = stated[where]
    if where == "positions":
        backbone(folder, max_position_embeddings=12)
    change_json(folder / file, **content)
    model = Embedder.from_pretrained(folder)
    assert model.max_length == 12
    model.save_pretrained(tmp_path / "saved")
    assert SentenceTransformer(str(tmp_path / "saved"), device="cpu").max_seq_length == 12
    assert Embedder.from_pretrained(tmp_path / "saved").max_length == 12


def test_a_reranker_from_an_embedders_folder_keeps_its_limit(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), max_seq_length=20)
    assert Reranker.from_pretrained(folder).max_length == 20
    assert Reranker.from_pretrained(folder, max_length=50).max_length == 50  # as the user says


# Padding


@pytest.mark.parametrize("pad_token_id", [0, -1, 3, None])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_decoder_scores_pairs_together_as_alone(
    family: str, pad_token_id: int | None, tmp_path: Path
) -> None:
    """Whatever its configuration says, and whether its tokenizer has a padding token or not."""
    folder = backbone(tmp_path / "model", family, labels=1)
    change_json(folder / "config.json", pad_token_id=pad_token_id)
    zoo.tokenizer_of(family, pad_token=None).save_pretrained(folder)
    own = zoo.tokenizer_of(family)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    classifier.config.pad_token_id = None
    with torch.no_grad():
        wanted = torch.cat(
            [
                classifier(**own(*pair, truncation=True, return_tensors="pt")).logits[0]
                for pair in PLAIN
            ]
        )
    for unpad in (True, False):
        found = Reranker.from_pretrained(folder, unpad_inputs=unpad).score(PLAIN, raw=True)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    Reranker.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    theirs = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    found = torch.tensor(theirs.predict(PLAIN, activation_fn=torch.nn.Identity()))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("unpad", [True, False])
def test_a_tokenizer_that_leaves_the_mask_out(unpad: bool, tmp_path: Path) -> None:
    """Without a mask, padding would be read as text: a result would depend on its neighbours."""
    names = ["input_ids", "token_type_ids"]
    found = []
    for kind, labels in ((Embedder, None), (Reranker, 1)):
        folder = backbone(tmp_path / kind.__name__, "bert", labels=labels)
        models = [kind.from_pretrained(folder, unpad_inputs=unpad)]
        change_json(folder / "tokenizer_config.json", model_input_names=names)
        models.append(kind.from_pretrained(folder, unpad_inputs=unpad))
        models[1].save_pretrained(tmp_path / "saved")
        if isinstance(models[0], Embedder):
            theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(ENCODED)
            own = models[0].encode(ENCODED)
            torch.testing.assert_close(torch.tensor(theirs), own, atol=1e-5, rtol=1e-5)
        found += [
            [
                m.encode(ENCODED) if isinstance(m, Embedder) else m.score(PLAIN, raw=True)
                for m in models
            ]
        ]
        collate = (
            ScoredPairCollator(models[1].tokenizer, 16, 32)
            if kind is Embedder
            else PairCollator(models[1].tokenizer, 32)
        )
        rows = [{"query": q, "doc": d, "rel": 1.0, "weight": 1.0} for q, d in PLAIN]
        texts = collate(rows)["texts"]
        padding = texts["input_ids"] == models[1].tokenizer.pad_token_id
        assert padding.any() and torch.equal(texts["attention_mask"] == 0, padding)
        served = ServedModel(models[1], "model")
        tokens = (
            served.tokenizer.texts(ENCODED) if labels is None else served.pairs(PLAIN, Truncation())
        )
        with torch.inference_mode():
            computed = torch.from_numpy(served.compute(tokens))
        torch.testing.assert_close(computed, found[-1][1], atol=1e-6, rtol=0)
    for one, other in found:
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("unpad", [True, False])
@pytest.mark.parametrize(
    "family", ["bert", "roberta", "electra", "distilbert", "mpnet", "modernbert", "t5", "qwen3"]
)
def test_padding_on_the_left_changes_nothing(family: str, unpad: bool, tmp_path: Path) -> None:
    """Neither here nor, of what looks in both directions, where others open the saved folder."""
    left = {"padding_side": "left"}
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base", family), pooling="cls")
    wanted = Embedder.from_pretrained(folder, unpad_inputs=unpad).encode(ENCODED)
    change_json(folder / "tokenizer_config.json", **left)
    model = Embedder.from_pretrained(folder, unpad_inputs=unpad)
    torch.testing.assert_close(model.encode(ENCODED), wanted, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(ENCODED)
    torch.testing.assert_close(torch.tensor(theirs), wanted, atol=1e-5, rtol=1e-5)
    if family == "t5":  # has no classifier of pairs
        return
    classifier = backbone(tmp_path / "classifier", family, labels=1)
    change_json(classifier / "tokenizer_config.json", **left)
    reranker = Reranker.from_pretrained(classifier, unpad_inputs=unpad)
    alone = torch.cat([reranker.score([pair], raw=True) for pair in PAIRS])
    torch.testing.assert_close(reranker.score(PAIRS, raw=True), alone, atol=1e-5, rtol=1e-5)
    reranker.save_pretrained(tmp_path / "reranker")
    same = CrossEncoder(str(tmp_path / "reranker"), device="cpu")
    found = torch.tensor(same.predict(PAIRS, activation_fn=torch.nn.Identity()))
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("flag", ["return_dict", "output_attentions"])
def test_how_a_folder_wants_to_be_called_does_not_matter(flag: str, tmp_path: Path) -> None:
    for labels in (None, 1):
        folder = backbone(tmp_path / str(labels), "bert", labels=labels)
        opens: Any = Embedder if labels is None else Reranker
        given = ENCODED if labels is None else PAIRS
        run = "encode" if labels is None else "score"
        wanted = getattr(opens.from_pretrained(folder), run)(given)
        change_json(folder / "config.json", **{flag: flag == "output_attentions"})
        model = opens.from_pretrained(folder)
        assert model.unpadded
        torch.testing.assert_close(getattr(model, run)(given), wanted, atol=0, rtol=0)
        model.save_pretrained(tmp_path / f"saved {labels}")


def test_nothing_to_pad_with(tmp_path: Path) -> None:
    folder = backbone(tmp_path / "model", "llama")
    zoo.tokenizer_of("llama", pad_token=None, eos_token=None).save_pretrained(folder)
    refused(Embedder.from_pretrained, folder, "pad_token", "tokenizer_config.json")


# Vocabularies


def test_tokens_without_a_row_are_refused_where_they_stand(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"))
    own = zoo.tokenizer_of("bert")
    own.add_tokens(["[D1]", "[D2]"], special_tokens=True)
    own.save_pretrained(folder)
    model = Embedder.from_pretrained(folder)
    assert "2 tokens of the tokenizer have no row" in caplog.text and "[D1]" in caplog.text
    wanted = zoo.by_sentence_transformers(folder, ENCODED)
    torch.testing.assert_close(model.encode(ENCODED), wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(TokenWithoutEmbedding, match=r"'\[D2\]'"):
        model.encode(["a", "a [D2]"])
    scorer = Reranker.from_pretrained(folder)
    with pytest.raises(TokenWithoutEmbedding, match=r"resize_token_embeddings"):
        scorer.score([("a [D1]", "b")])


# What is refused


def test_a_token_without_a_row_behind_a_gap_in_the_vocabulary(tmp_path: Path) -> None:
    """There are as many tokens as rows, and yet one id lies beyond them."""
    folder = backbone(tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["cat"] = len(vocabulary)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(TokenWithoutEmbedding, match=r"'cat' .* has no row"):
        Embedder.from_pretrained(folder).encode(["a cat"])


def test_classifiers_of_several_labels_say_what_they_are(tmp_path: Path) -> None:
    folder = backbone(tmp_path / "model", labels=3)
    change_json(folder / "config.json", id2label={"0": "contradiction", "1": "entailment",
                                                  "2": "neutral"})  # fmt: skip
    refused(Reranker.from_pretrained, folder, "3 labels", "entailment", "num_labels 1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "MultiVectorEncoder"}, ["MultiVectorEncoder", "late-interaction"]),
        ({"model_type": "SparseEncoder"}, ["SparseEncoder", "sparse"]),
        ({"model_type": "CrossEncoder"}, ["CrossEncoder", "reranker"]),
        ({"similarity_fn_name": "maxsim"}, ["maxsim", "late interaction"]),
    ],
)
def test_other_kinds_of_models_are_refused_by_name(
    changes: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"))
    change_json(folder / "config_sentence_transformers.json", **changes)
    refused(Embedder.from_pretrained, folder, *words, "config_sentence_transformers.json")


@pytest.mark.parametrize(
    "name",
    [
        "sentence_transformers.models.CNN",
        "sentence_transformers.models.LSTM",
        "sentence_transformers.sentence_transformer.modules.StaticEmbedding",
        "sentence_transformers.models.Router",
        "sentence_transformers.util.cos_sim",
        "sentence_transformers.no_such.Module",
        "os.path.join",
        "my_code.Head",
    ],
)
def test_a_module_that_cannot_be_run_is_named(name: str, tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), dense(32, 16))
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = name
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(Embedder.from_pretrained, folder, name, "modules.json")


def test_folders_that_are_no_embedders(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), dense(32, 16))
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([modules[0], modules[2]]))
    refused(Embedder.from_pretrained, folder, "no Pooling")
    (folder / "modules.json").write_text(json.dumps(modules[1:]))
    refused(Embedder.from_pretrained, folder, "first module", "Pooling")
    (folder / "modules.json").write_text("[{")
    refused(Embedder.from_pretrained, folder, "modules.json")
    (folder / "modules.json").write_text(json.dumps([*modules, {**modules[2], "path": "../x"}]))
    refused(Embedder.from_pretrained, folder, "../x")
    (folder / "modules.json").write_text(json.dumps([*modules, modules[2]]))
    refused(Embedder.from_pretrained, folder, "do not fit", "Dense")


@pytest.mark.parametrize(
    "changes",
    [
        {"activation_function": "my_code.Own"},
        {"activation_function": "torch.nn.functional.relu"},
        {"use_gate": True},
    ],
)
def test_a_dense_module_that_would_open_as_another(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), dense(32, 16))
    change_json(folder / "2_Dense" / "config.json", **changes)
    refused(Embedder.from_pretrained, folder, "2_Dense")


@pytest.mark.parametrize(
    "changes",
    [
        {"query_length": 16},
        {"query_expansion": {"strategy": "fixed", "length": 32}},
        {"transformer_task": "text-generation"},
        {"processing_kwargs": {"text": {"add_special_tokens": False}}},
    ],
)
def test_what_the_layout_asks_for_and_is_not_done(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"))
    change_json(folder / "sentence_bert_config.json", **changes)
    refused(Embedder.from_pretrained, folder, next(iter(changes)), "sentence_bert_config.json")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", {}),
        ("modules.json", [77]),
        ("modules.json", [{"type": "sentence_transformers.models.Transformer"}]),
        ("modules.json", [{"type": 1, "path": ""}]),
        ("config_sentence_transformers.json", []),
        ("config_sentence_transformers.json", {"prompts": ["a"]}),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}),
        ("config_sentence_transformers.json", {"default_prompt_name": "web"}),
        ("config_sentence_transformers.json", {"model_type": [None]}),
        ("config_sentence_transformers.json", {"truncate_dim": "all"}),
        ("sentence_bert_config.json", {"transformer_task": {}}),
        ("config.json", {"model_type": "bert", "hidden_dropout_prob": {}}),
        ("config.json", {"model_type": "bert", "num_attention_heads": 0}),
    ],
)
def test_files_of_the_wrong_form_give_one_line(file: str, content: Any, tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"))
    (folder / file).write_text(json.dumps(content))
    refused(Embedder.from_pretrained, folder, str(folder))


def test_late_interaction_without_a_layout(tmp_path: Path) -> None:
    folder = backbone(tmp_path / "model")
    change_json(folder / "config.json", architectures=["HF_ColBERT"])
    refused(Embedder.from_pretrained, folder, "HF_ColBERT")
    refused(Reranker.from_pretrained, folder, "HF_ColBERT")


def test_an_encoder_that_sentence_transformers_opens_with_random_weights(tmp_path: Path) -> None:
    """It looks for the weights of MarianEncoder where those of MarianModel are."""
    parts = {"layers": 1, "attention_heads": 4, "ffn_dim": 48}
    sizes: dict[str, Any] = {
        f"{side}_{part}": n for side in ("encoder", "decoder") for part, n in parts.items()
    }
    tokenizer = zoo.tokenizer_of("t5")
    config = transformers.MarianConfig(vocab_size=len(tokenizer), d_model=32, pad_token_id=0,
                                       max_position_embeddings=64, **sizes)  # fmt: skip
    transformers.MarianModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    refused(Embedder.from_pretrained, tmp_path, "marian", "encoder")


def test_an_adapter_without_its_base(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"))
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    refused(Embedder.from_pretrained, folder, "adapter_config.json", "merge")


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.bpe.model"])
def test_a_sentencepiece_tokenizer_names_the_package(name: str, tmp_path: Path) -> None:
    if zoo.has_sentencepiece():
        pytest.skip("sentencepiece is installed")
    folder = backbone(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(b"\n\x08")
    refused(Embedder.from_pretrained, folder, name, "sentencepiece", "pip install")


# Prompts and settings


def test_prompts_by_every_name_and_settings_are_kept(tmp_path: Path) -> None:
    prompts = {"query": "how to ", "passage": "the dog ", "clustering": "a cat "}
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), prompts=prompts,
                      default_prompt_name="clustering", similarity_fn_name="dot")  # fmt: skip
    change_json(folder / "config_sentence_transformers.json", prompts=prompts,
                requirements={"torch": ">=2"})  # fmt: skip
    model = Embedder.from_pretrained(folder)
    theirs = SentenceTransformer(str(folder), device="cpu")
    for name, side in (("query", "query"), ("passage", "document"), ("clustering", None)):
        wanted = torch.tensor(theirs.encode(list(ENCODED), prompt_name=name))
        found = model.encode(ENCODED, prompt_name=side)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="'retrieval' is not one of the model's prompts"):
        model.encode(ENCODED, prompt_name="retrieval")
    model.save_pretrained(tmp_path / "saved")
    settings = json.loads((tmp_path / "saved/config_sentence_transformers.json").read_text())
    assert settings["default_prompt_name"] == "clustering"
    assert settings["similarity_fn_name"] == "dot"
    assert settings["requirements"] == {"torch": ">=2"}
    assert settings["prompts"] == prompts | {"document": "the dog "}


def test_modules_are_written_for_release_5_where_it_can_say_them(tmp_path: Path) -> None:
    after = [dense(64, 16), Normalize()]
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), *after,
                      pooling=("cls", "mean"))  # fmt: skip
    Embedder.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    entries = json.loads((tmp_path / "saved" / "modules.json").read_text())
    assert [entry["type"] for entry in entries] == [
        f"sentence_transformers.models.{name}"
        for name in ("Transformer", "Pooling", "Dense", "Normalize")
    ]
    pooling = json.loads((tmp_path / "saved" / "1_Pooling" / "config.json").read_text())
    assert {flag for flag, on in pooling.items() if on is True} == {
        "pooling_mode_cls_token", "pooling_mode_mean_tokens", "include_prompt"
    }  # fmt: skip
    known = {"in_features", "out_features", "bias", "activation_function"}
    assert json.loads((tmp_path / "saved/2_Dense/config.json").read_text()).keys() == known


# Rerankers


@pytest.mark.parametrize("form", ["config", "release 3", "release 6"])
def test_a_reranker_keeps_the_activation_of_its_folder(form: str, tmp_path: Path) -> None:
    folder = backbone(tmp_path / "model", labels=1)
    identity = "torch.nn.modules.linear.Identity"
    if form == "config":
        change_json(folder / "config.json", sentence_transformers={"activation_fn": identity})
    elif form == "release 3":
        change_json(folder / "config.json", sbert_ce_default_activation_function=identity)
    else:
        theirs = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity(),
                              prompts={"web": "how to "}, default_prompt_name="web")  # fmt: skip
        folder = tmp_path / "theirs"
        theirs.save_pretrained(str(folder))
    wanted = zoo.by_cross_encoder(folder, PAIRS)
    model = Reranker.from_pretrained(folder)
    torch.testing.assert_close(model.score(PAIRS), wanted, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    found = zoo.by_cross_encoder(tmp_path / "saved", PAIRS)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    again = Reranker.from_pretrained(tmp_path / "saved").score(PAIRS)
    torch.testing.assert_close(again, wanted, atol=1e-5, rtol=1e-5)


def test_an_activation_that_is_not_torchs_is_refused(tmp_path: Path) -> None:
    folder = backbone(tmp_path / "model", labels=1)
    for name in ("my_code.Own", "torch.nn.no_such.Thing"):
        change_json(folder / "config.json", sentence_transformers={"activation_fn": name})
        refused(Reranker.from_pretrained, folder, name, "activation_fn")


def test_a_reranker_of_several_modules_is_refused_by_name(tmp_path: Path) -> None:
    base = backbone(tmp_path / "base")
    theirs = CrossEncoder(
        modules=[
            Transformer(str(base)),
            Pooling(32, "cls"),
            dense(32, 1, module_output_name="scores"),
        ],
        device="cpu",
    )
    theirs.save_pretrained(str(tmp_path / "model"))
    refused(Reranker.from_pretrained, tmp_path / "model", "Pooling, Dense", "modules.json")


# Code of a model's own


def test_a_pickled_module_of_any_kind_is_refused(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), zoo.layer_norm())
    weights = folder / "2_LayerNorm" / "model.safetensors"
    weights.rename(weights.with_name("kept"))
    torch.save({}, folder / "2_LayerNorm" / "pytorch_model.bin")
    refused(Embedder.from_pretrained, folder, "2_LayerNorm", "safetensors")
    save_file({"norm.weight": torch.ones(3)}, weights)
    refused(Embedder.from_pretrained, folder, "2_LayerNorm")
