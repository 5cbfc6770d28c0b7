"""FSDP2 on two processes: weights that are really shared out, and the model of one process.

accelerate shards on GPUs only and runs DDP on a CPU, so ``launched.py`` makes it take Gloo for
theirs. That weights are sharded is seen on the parameters themselves.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import (
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from encoders import Embedder, Reranker
from encoders.weights.sharding import layer_classes
from forked import together
from launching import launched_environment, seen, write_recipes
from runs import NO_DROPOUT, TEXTS, assert_same_weights, losses, refused, train, write_format
from tiny import make_config, make_tokenizer, save_backbone
from trainers.distributed.sharding import keep_fp32_outside

FSDP = "configs/accelerate/fsdp2.yaml"
STEPS: dict[str, Any] = {
    "max_steps": 4,
    "warmup_steps": 0,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
}


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models of three families, and rows."""
    folder = tmp_path_factory.mktemp("fsdp")
    (folder / "one").mkdir()
    save_backbone(folder / "bert", TEXTS, **NO_DROPOUT)
    save_backbone(folder / "bert_with_dropout", TEXTS)
    tokenizer = make_tokenizer(TEXTS)
    small = make_config(len(tokenizer)).to_dict()
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    common = {name: small[name] for name in sizes} | {"vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    sizes_of_xlmr: dict[str, Any] = {"max_position_embeddings": 130, "num_labels": 1}
    xlmr = XLMRobertaConfig(**common, **NO_DROPOUT, **sizes_of_xlmr, pad_token_id=0)
    save(XLMRobertaForSequenceClassification(xlmr), tokenizer, folder / "xlmr")
    qwen = Qwen3Config(
        **common, num_key_value_heads=1, head_dim=16, max_position_embeddings=128, pad_token_id=0,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    save(Qwen3Model(qwen), tokenizer, folder / "qwen")
    for kind in ("scored", "groups"):
        write_format(kind, folder)
    return folder


def recipes(folder: Path, per_device: int) -> dict[str, dict[str, Any]]:
    """A full embedder, a reranker that ends with its best weights, a decoder with LoRA, merging."""
    groups = {"train_file": folder / "groups.jsonl", "eval_file": folder / "groups.jsonl"}
    scored = {"train_file": folder / "scored.jsonl", "eval_file": folder / "scored.jsonl"}
    # Batches that come out even: accelerate fills a short last one with rows of the first.
    sizes = dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size"), per_device)
    common = {**STEPS, **sizes, "train_group_size": 3}
    embedder = {"objective": "contrastive", "gradient_cache_chunk_size": 3, **groups, **common}
    return {
        "bert": {
            "objective": "weighted_mse", "model_name_or_path": folder / "bert",
            "projection_dim": 24, **scored, **common,
        },
        "xlmr": {
            "objective": "bce", "model_name_or_path": folder / "xlmr",
            "load_best_model_at_end": True, "metric_for_best_model": "eval_loss",
            **groups, **common,
        },
        "qwen": {
            "model_name_or_path": folder / "qwen", "pooling": "last", "lora_r": 4, **embedder,
        },
        "merged": {
            "model_name_or_path": folder / "bert", "guide_model": folder / "bert",
            "loss_args": {"absolute_margin": 0.02}, "merge_with_base": "auto", **embedder,
        },
        "tokens": {
            "model_name_or_path": folder / "bert", "projection_dim": 8, **embedder,
            "objective": "multi_vector_contrastive",
        },
        "merged_qwen": {
            "model_name_or_path": folder / "qwen", "pooling": "last", "lora_r": 4,
            "merge_with_base": 0.5, **embedder,
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def sharded(folder: Path) -> Path:
    """All of them by the same processes, with checkpoints of both kinds, gone on from as well."""
    runs = recipes(folder, 3)
    runs["dropout"] = runs["qwen"] | {
        "model_name_or_path": folder / "bert_with_dropout", "pooling": "mean", "lora_r": None,
        "gradient_accumulation_steps": 2,
    }  # fmt: skip
    for name in ("qwen", "dropout"):
        checkpoint = folder / "two" / name / "checkpoint-2"
        runs[f"{name}_resumed"] = runs[name] | {"resume_from_checkpoint": checkpoint}
    in_shards = ["FSDP_STATE_DICT_TYPE=SHARDED_STATE_DICT"]
    whole = ["FSDP_STATE_DICT_TYPE=FULL_STATE_DICT"]
    kinds = {"qwen": in_shards, "qwen_resumed": in_shards, "dropout": whole}
    kinds["by_cores"] = ["CORES=2"]
    runs["by_cores"] = runs["xlmr"]
    order = ["bert", "xlmr", "qwen", "qwen_resumed", "dropout", "dropout_resumed", "by_cores"]
    order += ["merged", "merged_qwen", "tokens"]
    command = write_recipes({name: runs[name] for name in order}, folder / "two", kinds)
    together(2, command, **launched_environment(FSDP))
    return folder / "two"


@pytest.mark.parametrize("name", ["bert", "xlmr", "qwen"])
def test_the_weights_are_shared_out_layer_by_layer(name: str, sharded: Path) -> None:
    """Each process holds half of every weight; a layer is brought together by itself."""
    notes = seen(sharded / name)
    assert [note["steps"] for note in notes] == [4, 4]
    for note in notes:
        assert note["sharded"] == note["all"]
        layers = [unit for unit in note["units"] if unit]
        assert "" in note["units"]
        assert len(layers) == 2
        assert all(unit.endswith((".0", ".1")) for unit in layers)
    assert sum(note["own"] for note in notes) == notes[0]["all"]
    assert max(note["own"] for note in notes) < 0.6 * notes[0]["all"]


@pytest.mark.parametrize("name", ["bert", "xlmr", "qwen", "merged", "merged_qwen", "tokens"])
def test_the_run_is_that_of_one_process(name: str, sharded: Path, folder: Path) -> None:
    """Losses, what is measured in between, and the model at the end."""
    one = train(folder / "one" / name, **recipes(folder, 6)[name])
    two = sharded / name
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    state = json.loads((one / "trainer_state.json").read_text(encoding="utf-8"))
    measured = [key for entry in state["log_history"] for key in entry if key.startswith("eval_")]
    measured = [key for key in set(measured) if not key.endswith(("runtime", "per_second"))]
    assert len(measured) > 1
    for key in measured:
        assert losses(two, key) == pytest.approx(losses(one, key), abs=1e-5), key
    assert_same_weights(one, two, tolerance=2e-5)


def test_processes_may_have_several_cores(sharded: Path) -> None:
    """Threads that ask each other's processes for weights, each in its own order, would hang."""
    assert [note["workers"] for note in seen(sharded / "by_cores")] == [0, 0]
    assert losses(sharded / "by_cores") == pytest.approx(losses(sharded / "xlmr"), abs=1e-5)


def test_what_is_saved_opens_everywhere_with_the_same_output(sharded: Path) -> None:
    texts = TEXTS[:5]
    for name in ("bert", "qwen", "qwen/checkpoint-2", "dropout/checkpoint-2"):
        own = Embedder.from_pretrained(sharded / name).encode(texts)
        theirs = SentenceTransformer(str(sharded / name), device="cpu").encode(texts)
        assert torch.allclose(own, torch.tensor(theirs), atol=1e-6), name
    pairs = [(TEXTS[0], text) for text in texts]
    scores = Reranker.from_pretrained(sharded / "xlmr").score(pairs)
    theirs = CrossEncoder(str(sharded / "xlmr"), device="cpu").predict(pairs)
    assert torch.allclose(scores, torch.tensor(theirs), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "optimizer"), [("qwen", "optimizer_0/.metadata"), ("dropout", "optimizer.bin")]
)
def test_a_run_goes_on_from_its_checkpoint(name: str, optimizer: str, sharded: Path) -> None:
    """Bit by bit, from an optimiser's state in shards and from a whole one."""
    assert (sharded / name / "checkpoint-2" / optimizer).is_file()
    assert_same_weights(sharded / name, sharded / f"{name}_resumed")
    assert losses(sharded / name) == losses(sharded / f"{name}_resumed")


# Without processes


def test_on_a_cpu_it_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in launched_environment(FSDP).items():
        monkeypatch.setenv(name, value)
    assert "on a CPU accelerate would run DDP instead" in refused(
        capsys, folder / "one" / "refused", **recipes(folder, 3)["bert"]
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--fsdp_version", "1"], "fsdp_version: 1: FSDP 1 is not supported; give 2"),
        (["--fsdp_auto_wrap_policy", "SIZE_BASED_WRAP"], "fsdp_auto_wrap_policy: SIZE_BASED_WRAP"),
        (["--fsdp_cpu_ram_efficient_loading", "true"], "every process reads the model itself"),
        (
            ["--fsdp_transformer_layer_cls_to_wrap", "BertEmbeddings,BertLayer"],
            "BertEmbeddings is not a layer of this model; leave it out of the launch file, or give "
            "BertLayer",
        ),
    ],
)
def test_what_a_launch_may_ask_for(
    options: list[str],
    expected: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in launched_environment(FSDP, *options).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("trainers.distributed.sharding.NOT_SHARDING", ())  # as if there were a GPU
    assert expected in refused(capsys, folder / "one" / "refused", **recipes(folder, 3)["bert"])


def test_a_worse_model_cannot_be_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in launched_environment(FSDP).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("trainers.distributed.sharding.NOT_SHARDING", ())
    given = recipes(folder, 3)["bert"] | {"on_worse": "keep_base"}
    line = refused(capsys, folder / "one" / "refused", **given)
    assert "on_worse: keep_base needs a comparison with the base, which with FSDP" in line


def test_layers_are_not_compiled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in launched_environment(FSDP).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("trainers.distributed.sharding.NOT_SHARDING", ())
    given = recipes(folder, 3)["bert"] | {"torch_compile": True}
    line = refused(capsys, folder / "one" / "refused", **given)
    assert "torch_compile: does not go with FSDP and unpad_inputs; leave torch_compile" in line


def test_another_launch_cannot_go_on_from_its_checkpoint(
    sharded: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kind in (("qwen", "SHARDED_STATE_DICT"), ("bert", "FULL_STATE_DICT")):
        given = recipes(folder, 6)[name] | {
            "resume_from_checkpoint": sharded / name / "checkpoint-2"
        }
        line = refused(capsys, folder / "one" / "refused", **given)
        assert f"holds the optimizer state of a run with {kind}, this one is launched" in line


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda size: Qwen3Model(Qwen3Config(**size, head_dim=16)), ["Qwen3DecoderLayer"]),
        (lambda size: MPNetModel(MPNetConfig(**size)), ["MPNetLayer"]),
        (
            lambda size: DistilBertModel(
                DistilBertConfig(vocab_size=99, dim=32, n_heads=2, n_layers=1, hidden_dim=64)
            ),
            ["TransformerBlock"],
        ),
        (
            lambda size: XLMRobertaForSequenceClassification(XLMRobertaConfig(**size)),
            ["XLMRobertaLayer"],
        ),
    ],
)
def test_layers_are_read_from_the_model(model: Any, expected: list[str]) -> None:
    """Without the class that holds the embeddings; also where transformers names none."""
    size = {
        "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 64,
    }  # fmt: skip
    assert layer_classes(model(size)) == expected


def test_only_the_computation_is_in_bf16() -> None:
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, mixed_precision_policy="bf16")
    keep_fp32_outside(plugin)
    policy = plugin.mixed_precision_policy
    assert policy.param_dtype == torch.bfloat16
    assert policy.reduce_dtype == torch.float32
    assert policy.output_dtype is None
