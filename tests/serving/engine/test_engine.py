"""The engine: order, budgets, admission, and what it survives."""

import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from common.prompts import with_prompt
from encoders import Embedder, Reranker
from encoders.kinds import Kind
from served import Held, engine_of, hold, until
from serving.engine.engine import Engine
from serving.engine.job import Job
from serving.engine.limits import LatencyEstimator
from serving.engine.model import ServedModel, inference, open_model
from serving.engine.tokenization import Tokens
from serving.http.errors import ServingError
from tiny import TEXTS, make_tokenizer, save_backbone


@pytest.fixture
def engine(tiny_bert: Path) -> Iterator[Engine]:
    with engine_of({"embedder": tiny_bert}, max_batch_tokens=64) as found:
        yield found


def submit(engine: Engine, *texts: str) -> Job:
    model = engine.models["embedder"]
    return engine.submit(model, model.tokenizer.texts(texts))


def counted(engine: Engine, name: str, **labels: str) -> float:
    return engine.metrics.registry.get_sample_value(f"tandem_{name}", labels) or 0.0


def test_vectors_are_those_of_encode_whatever_the_neighbours(tiny_bert: Path) -> None:
    offline = Embedder.from_pretrained(tiny_bert)
    texts = [*TEXTS, " ".join(TEXTS) * 3, "a"]
    wanted = offline.encode(texts).numpy()
    for budget in (8, 64, 4096):
        with engine_of({"embedder": tiny_bert}, max_batch_tokens=budget) as engine:
            together = submit(engine, *texts).future.result(60)
            np.testing.assert_allclose(together, wanted, atol=1e-5)
            alone = [submit(engine, text) for text in texts]
            for job, row in zip(alone, wanted, strict=True):
                np.testing.assert_allclose(job.future.result(60), row[None], atol=1e-5)


def test_prompts_left_out_of_pooling_are_those_that_stand_before_a_text(tmp_path: Path) -> None:
    """Not what a text by chance begins with."""
    folder = zoo.embedder(tmp_path / "model", zoo.backbone(tmp_path / "base"), include_prompt=False)
    offline = Embedder.from_pretrained(folder)
    served = ServedModel(offline, "m")
    given = [with_prompt("read a cat", "how to "), "how to read a cat"]
    with inference(torch.device("cpu"), bf16=False):
        found = served.compute(served.tokenizer.texts(given))
    wanted = [offline.encode(["read a cat"], prompt="how to "), offline.encode([given[1]])]
    np.testing.assert_allclose(found, torch.cat(wanted).numpy(), atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-3)


@pytest.mark.parametrize(("kind", "flag", "least"), [("embedder", "text_", 3), ("reranker", "", 5)])
def test_a_length_without_room_for_a_text_is_refused(
    tiny_bert: Path, tiny_classifier: Path, kind: Kind, flag: str, least: int
) -> None:
    folder = tiny_bert if kind == "embedder" else tiny_classifier
    for length in range(1, least):
        with pytest.raises(ValueError, match=f"^{flag}max_length: {length} .* at least {least}$"):
            open_model(kind, folder, "m", device="cpu", max_length=length)
    with inference(torch.device("cpu"), bf16=False):
        open_model(kind, folder, "m", device="cpu", max_length=least).warm_up()


def test_in_bf16_vectors_point_the_same_way(tiny_bert: Path) -> None:
    """Emulated where the CPU has no bf16: slow, and the same numbers."""
    model = open_model("embedder", tiny_bert, "m", device="cpu")
    tokens = model.tokenizer.texts([*TEXTS, " ".join(TEXTS) * 3])
    found = {}
    for bf16 in (False, True):
        with inference(torch.device("cpu"), bf16):
            found[bf16] = torch.from_numpy(model.compute(tokens))
    assert not found[True].equal(found[False])
    assert torch.cosine_similarity(found[True], found[False], dim=-1).min() >= 0.9999


def test_scores_are_those_of_score(tiny_classifier: Path) -> None:
    pairs = [(TEXTS[0], text) for text in [*TEXTS, " ".join(TEXTS) * 3]]
    wanted = Reranker.from_pretrained(tiny_classifier).score(pairs, raw=True).numpy()
    with engine_of({"reranker": tiny_classifier}, max_batch_tokens=100) as engine:
        model = engine.models["reranker"]
        found = engine.submit(model, model.tokenizer.pairs(pairs)).future.result(60)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_batches_are_filled_in_order_up_to_the_budget(engine: Engine) -> None:
    held = hold(engine)
    long = " ".join(TEXTS)  # more than the budget of 64: it runs alone
    jobs = [submit(engine, text) for text in ["a cat", "the dog", long, "a mat"] + ["on"] * 30]
    held.free.set()
    for job in jobs:
        job.future.result(60)
    sizes = [sum(map(len, batch)) for batch in held.batches[1:]]
    given = [tokens for batch in held.batches[1:] for tokens in batch]
    assert given == [job.items[0] for job in jobs]
    assert [len(batch) for batch in held.batches[1:]] == [2, 1, 21, 10]
    assert all(size <= 64 for size, batch in zip(sizes, held.batches[1:], strict=True) if batch[1:])


def test_single_queries_go_before_bulk_work_which_gets_every_fourth_batch(engine: Engine) -> None:
    held = hold(engine)
    bulk = submit(engine, *["the cat sat on the mat while the dog slept"] * 60)
    queries = [submit(engine, "a cat sat on the mat while a dog slept") for _ in range(40)]
    held.free.set()
    for job in [bulk, *queries]:
        job.future.result(60)
    query = queries[0].items[0]
    assert len(query) == len(bulk.items[0]) == 12  # so that 5 fill a batch of 64
    lanes = ["query" if batch[0] == query else "bulk" for batch in held.batches[1:]]
    assert lanes == (["query"] * 3 + ["bulk"]) * 2 + ["query"] * 2 + ["bulk"] * 10
    assert all(len({tuple(tokens.input_ids) for tokens in batch}) == 1 for batch in held.batches)


def test_work_is_taken_on_as_a_whole_or_refused(engine: Engine) -> None:
    held = hold(engine)
    model = engine.models["embedder"]
    model.latency = LatencyEstimator((10, 1.0), (100, 10.0))  # 0.1 s a token
    submit(engine, *["a cat sat on"] * 20)  # 120 tokens: 12 s
    with pytest.raises(ServingError) as refused:
        submit(engine, *["a cat sat on"] * 5)
    assert refused.value.code == "overloaded"
    assert refused.value.headers["Retry-After"] == "12"
    assert engine.waiting == 20
    submit(engine, "a cat")  # a single query waits for no bulk work
    with pytest.raises(ServingError) as too_much:
        submit(engine, *["a cat sat on"] * 60)
    assert too_much.value.code == "too_much_work"
    assert "send fewer" in too_much.value.message
    assert counted(engine, "rejected_total", reason="overloaded") == 1
    held.free.set()


def test_the_estimate_follows_the_machine() -> None:
    pace = LatencyEstimator((10, 0.02), (1010, 1.02))
    assert pace.seconds(2000, 1000) == pytest.approx(2 * 0.01 + 2.0)
    for _ in range(100):
        pace.note(1000, 2 * (0.01 + 1.0))
    assert pace.seconds(2000, 1000) == pytest.approx(2 * 2.02, rel=1e-3)


def test_what_is_withdrawn_is_not_computed(engine: Engine) -> None:
    held = hold(engine)
    gone = [submit(engine, "a dog") for _ in range(500)]
    kept = submit(engine, "a cat")
    for job in gone:
        engine.withdraw(job)
    assert engine.waiting == 1
    held.free.set()
    kept.future.result(60)
    assert held.batches[1:] == [[kept.items[0]]]
    assert counted(engine, "dropped_total") == 500
    assert counted(engine, "queue_tokens") == 0


def test_one_bad_text_fails_alone(engine: Engine) -> None:
    held = hold(engine)
    bad = engine.models["embedder"].tokenizer.texts(["fever"])[0]

    def fault(batch: Sequence[Tokens]) -> None:
        if bad in batch:
            raise IndexError("poison")

    held.fault = fault
    good = [submit(engine, "a cat") for _ in range(15)]
    poisoned = submit(engine, "fever")
    several = submit(engine, "a cat", "fever", "a dog")
    held.free.set()
    for job in good:
        assert job.future.result(60).shape == (1, 32)
    for job in (poisoned, several):
        with pytest.raises(ServingError) as failed:
            job.future.result(60)
        assert failed.value.code == "inference_error"
    assert "(number 1)" in failed.value.message
    assert engine.health() == ("ready", "")
    assert submit(engine, "a cat").future.result(60).shape == (1, 32)


def test_out_of_memory_halves_the_budget(engine: Engine) -> None:
    held = hold(engine)

    def fault(batch: Sequence[Tokens]) -> None:
        if len(batch) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")

    held.fault = fault
    engine.models["embedder"].max_batch_tokens = 200
    jobs = [submit(engine, "a cat sat on") for _ in range(10)]
    held.free.set()
    for job in jobs:
        job.future.result(60)
    assert engine.models["embedder"].max_batch_tokens == 100
    assert counted(engine, "model_errors_total", kind="out_of_memory") == 1


@pytest.mark.parametrize("name", [*zoo.FAMILIES, *zoo.CHAINS])
def test_weights_held_in_bf16_give_the_results_of_autocast(name: str, tmp_path: Path) -> None:
    """Bit for bit, with less memory."""
    base = zoo.backbone(tmp_path / "base", name if name in zoo.FAMILIES else "bert")
    folder = zoo.CHAINS[name](tmp_path / "model", base) if name in zoo.CHAINS else base
    model = open_model("embedder", folder, "m", device="cpu")
    tokens = model.tokenizer.texts([*TEXTS, " ".join(TEXTS) * 3])
    with inference(torch.device("cpu"), True):
        wanted, bytes_before = model.compute(tokens), size_of(model)
    model.hold_in_bf16()
    with inference(torch.device("cpu"), True):
        np.testing.assert_array_equal(model.compute(tokens), wanted)
    assert size_of(model) < 0.9 * bytes_before


def test_a_model_that_computes_its_padding_has_few_sizes(tiny_bert: Path) -> None:
    """Each has kernels of its own; none is longer than the model takes. Results are encode's."""
    offline = Embedder.from_pretrained(tiny_bert, unpad_inputs=False, max_length=40)
    model, seen = ServedModel(offline, "m"), set[int]()
    offline.backbone.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.add(args[0].shape[1])
    )
    texts = [("a " * count).strip() for count in range(1, 60)]
    with inference(torch.device("cpu"), False):
        found = [model.compute(model.tokenizer.texts([text]))[0] for text in texts]
    assert seen == {16, 32, 40}
    np.testing.assert_allclose(found, offline.encode(texts).numpy(), atol=1e-6)


def size_of(model: ServedModel) -> int:
    weights = model.encoder.parameters()
    return sum(weight.numel() * weight.element_size() for weight in weights)


def test_a_model_that_gives_nan_is_not_served(tiny_bert: Path, tmp_path: Path) -> None:
    """At start-up it is an error; later the text is failed, and then the server."""
    broken = Embedder.from_pretrained(tiny_bert)
    for weight in broken.backbone.parameters():
        weight.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    with engine_of({"embedder": tmp_path / "broken"}, ready=False) as engine:
        until(lambda: engine.start_error is not None)
        assert "not finite" in str(engine.start_error)
    with engine_of({"embedder": tiny_bert}) as engine:
        for weight in engine.models["embedder"].encoder.parameters():
            weight.data.fill_(float("nan"))
        with pytest.raises(ServingError) as failed:
            submit(engine, "a cat").future.result(60)
        until(lambda: engine.health()[0] == "unhealthy")
        assert failed.value.code in ("model_output_not_finite", "unhealthy")
        assert counted(engine, "model_errors_total", kind="not_finite") == 1


def test_a_token_that_the_model_has_not_fails_its_own_text(tiny_bert: Path, tmp_path: Path) -> None:
    """It is the client's text, not the model, that is at fault."""
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["[NEW]"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    with engine_of({"embedder": folder}) as engine:
        held = hold(engine)
        jobs = [submit(engine, text) for text in ("a cat", "a [NEW] cat")]
        held.free.set()
        wanted = Embedder.from_pretrained(tiny_bert).encode(["a cat"])[0]
        np.testing.assert_allclose(jobs[0].future.result(60)[0], wanted, atol=1e-5)
        with pytest.raises(ServingError, match=r"'\[NEW\]'") as failed:
            jobs[1].future.result(60)
        assert failed.value.code == "validation_error"
        assert engine.health()[0] == "ready"


def test_the_threads_death_fails_all_that_wait(engine: Engine) -> None:
    held = hold(engine)

    def fault(batch: Sequence[Tokens]) -> None:
        raise SystemExit

    held.fault = fault
    jobs = [submit(engine, "a cat") for _ in range(100)]
    held.free.set()
    for job in jobs:
        with pytest.raises(ServingError) as failed:
            job.future.result(60)
        assert failed.value.code == "unhealthy"
    assert engine.health()[0] == "unhealthy"
    with pytest.raises(ServingError):
        submit(engine, "a cat")


def test_a_model_that_hangs_is_unhealthy(tiny_bert: Path) -> None:
    with engine_of({"embedder": tiny_bert}, stall_timeout=0.05) as engine:
        held = hold(engine)
        until(lambda: engine.health()[0] == "unhealthy")
        assert "one batch" in engine.health()[1]
        held.free.set()
        until(lambda: engine.health()[0] == "ready")


def test_draining_finishes_what_waits_and_takes_nothing_on(engine: Engine) -> None:
    held = hold(engine)
    waiting = [submit(engine, "a cat") for _ in range(40)]
    engine.drain()
    with pytest.raises(ServingError) as refused:
        submit(engine, "a cat")
    assert refused.value.code == "draining"
    assert refused.value.headers["Connection"] == "close"
    assert not engine.idle
    held.free.set()
    for job in waiting:
        job.future.result(60)
    until(lambda: engine.idle)


def test_stopping_fails_what_waits(engine: Engine) -> None:
    held = hold(engine)
    waiting = submit(engine, "a cat")
    engine.stop()
    with pytest.raises(ServingError) as failed:
        waiting.future.result(60)
    assert failed.value.code == "draining"
    held.free.set()
    engine.join(30)


def test_two_models_share_the_thread(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    other = save_backbone(tmp_path / "other", seed=1)
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier, "embedder_baseline": other}
    with engine_of(folders) as engine:
        models = engine.models
        threads: set[int] = set()
        for model in models.values():
            note_threads(model, threads)
        jobs = []
        for _ in range(20):
            for role in ("embedder", "embedder_baseline"):
                items = models[role].tokenizer.texts(TEXTS[:2])
                jobs.append((role, engine.submit(models[role], items)))
            items = models["reranker"].tokenizer.pairs([(TEXTS[0], TEXTS[1])])
            jobs.append(("reranker", engine.submit(models["reranker"], items)))
        wanted = {
            "embedder": Embedder.from_pretrained(tiny_bert).encode(TEXTS[:2]),
            "embedder_baseline": Embedder.from_pretrained(other).encode(TEXTS[:2]),
            "reranker": Reranker.from_pretrained(tiny_classifier).score(
                [(TEXTS[0], TEXTS[1])], raw=True
            ),
        }
        for role, job in jobs:
            np.testing.assert_allclose(job.future.result(60), wanted[role].numpy(), atol=1e-5)
        assert len(threads) == 1


def note_threads(model: ServedModel, threads: set[int]) -> None:
    held = Held(model)
    held.fault = lambda batch: threads.add(threading.get_ident())


def test_a_cancelled_future_harms_nobody(engine: Engine) -> None:
    held = hold(engine)
    job, kept = submit(engine, "a cat"), submit(engine, "a dog")
    job.future.cancel()
    held.free.set()
    assert kept.future.result(60).shape == (1, 32)
    with pytest.raises(CancelledError):
        job.future.result(60)
