"""Several replicas: the answers of one, whatever becomes of the processes."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest

from encoders import Embedder
from served import engine_of, open_doomed, open_folders, replicated, running, until
from serving.engine.engine import Engine
from serving.engine.job import Job
from serving.engine.placement import Placement
from serving.engine.replica import Replica, ReplicaLost
from serving.engine.replicated import ReplicatedEngine
from serving.engine.tokenization import TextTokenizer, Tokens
from serving.http.errors import ServingError
from tiny import TEXTS

CLIENTS = 16
# Without the words of ``served.FATE``.
HARMLESS = [text for text in TEXTS if "fever" not in text]


@pytest.fixture(scope="module")
def folders(tiny_bert: Path, tiny_classifier: Path) -> dict[str, Path]:
    return {"embedder": tiny_bert, "reranker": tiny_classifier}


@pytest.fixture
def engine(folders: dict[str, Path]) -> Iterator[ReplicatedEngine]:
    with replicated(folders, max_batch_tokens=64) as found:
        yield found


def submit(engine: Engine, *texts: str) -> Job:
    model = engine.models["embedder"]
    return engine.submit(model, model.tokenizer.texts(texts))


def counted(engine: Engine, name: str, **labels: str) -> float:
    return engine.metrics.registry.get_sample_value(f"tandem_{name}", labels) or 0.0


def all_alive(engine: ReplicatedEngine) -> bool:
    return counted(engine, "replicas") == 2


def kill(engine: ReplicatedEngine, number: int) -> int:
    pid: int = engine.processes[number].pid
    os.kill(pid, signal.SIGKILL)
    return pid


def test_the_answers_are_those_of_one_bit_for_bit(folders: dict[str, Path]) -> None:
    """With the same batches and threads. A corpus is embedded in other batches: almost the same."""
    documents = {f"d{number}": text for number, text in enumerate(HARMLESS * 200)}
    found = {}
    with (
        engine_of(folders, documents=documents) as alone,
        replicated(folders, documents=documents) as several,
    ):
        for engine in (alone, several):
            embedder, reranker = engine.models["embedder"], engine.models["reranker"]
            pairs = reranker.tokenizer.pairs([(HARMLESS[0], text) for text in HARMLESS])
            found[engine] = [
                *(submit(engine, text).future.result(60) for text in HARMLESS),
                submit(engine, *HARMLESS * 40).future.result(60),
                engine.submit(reranker, pairs).future.result(60),
            ]
            assert embedder.max_batch_tokens == 1024
        until(lambda: all_alive(several))
        for own, wanted in zip(found[several], found[alone], strict=True):
            np.testing.assert_array_equal(own, wanted)
        assert several.model_sets.live.corpus is not None
        assert alone.model_sets.live.corpus is not None
        assert several.model_sets.live.corpus.ids == alone.model_sets.live.corpus.ids
        np.testing.assert_allclose(
            several.model_sets.live.corpus.vectors, alone.model_sets.live.corpus.vectors, atol=1e-6
        )


def test_the_server_holds_no_weights_and_knows_the_models(engine: ReplicatedEngine) -> None:
    for model in engine.models.values():
        assert sum(weight.numel() for weight in model.encoder.parameters()) == 0
        assert model.latency.overhead + model.latency.per_token > 0
    with running(engine, ["embedder", "reranker"]) as (url, _):
        until(lambda: all_alive(engine))
        assert httpx.get(f"{url}/health").json() == {"status": "ok", "replicas": 2}
        first, second = httpx.get(f"{url}/info").json()["models"]
        assert (first["dim"], first["device"], first["max_batch_tokens"]) == (32, "cpu", 64)
        assert second["task"] == "reranker"
        body = {"query": "csv", "documents": HARMLESS, "top_n": 3}
        assert len(httpx.post(f"{url}/search", json=body, timeout=30).json()["results"]) == 3
        body = {"text_1": "a", "text_2": ["a cat", "a dog"]}
        assert len(httpx.post(f"{url}/score", json=body, timeout=30).json()["data"]) == 2


def test_nobody_notices_that_a_replica_is_killed(engine: ReplicatedEngine) -> None:
    until(lambda: all_alive(engine))
    wanted = {text: submit(engine, text).future.result(60)[0] for text in HARMLESS}
    over, wrong, answered = threading.Event(), [], [0] * CLIENTS

    def ask(url: str, number: int) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not over.is_set():
                text = HARMLESS[(number + answered[number]) % len(HARMLESS)]
                found = client.post("/embed", json={"text": text})
                if found.status_code != 200:
                    wrong.append(found.text)
                elif not np.allclose(found.json()["embedding"], wanted[text], atol=1e-5):
                    wrong.append(text)
                answered[number] += 1

    with running(engine, ["embedder"]) as (url, _), ThreadPoolExecutor(CLIENTS) as pool:
        try:
            asked = [pool.submit(ask, url, number) for number in range(CLIENTS)]
            until(lambda: min(answered) >= 2)
            killed = kill(engine, 0)
            until(lambda: not all_alive(engine))
            assert httpx.get(f"{url}/health", timeout=30).json()["replicas"] == 1
            until(lambda: all_alive(engine))
            seen = list(answered)
            until(lambda: all(now > then for now, then in zip(answered, seen, strict=True)))
        finally:
            over.set()
        for client in asked:
            client.result(60)
    assert wrong == []
    assert engine.processes[0].pid != killed
    assert counted(engine, "replica_restarts_total") == 1


def test_a_replica_that_stops_is_lost_even_if_its_batch_does_not_fit_into_the_pipe(
    folders: dict[str, Path],
) -> None:
    replica = Replica(Placement("cpu", 1, []), "float32", lambda: None)
    replica.open(0, partial(open_folders, folders, None))
    os.kill(replica.pid, signal.SIGSTOP)
    large = [Tokens(list(range(1000)), [0] * 1000, False) for _ in range(2000)]
    with pytest.raises(ReplicaLost, match=r"has been computing one batch for 0\.5 s"):
        replica.compute(0, "embedder", large, 0.5)
    replica.kill()
    until(lambda: not replica.alive)


def test_a_replica_that_dies_idle_is_noticed_and_started_anew(engine: ReplicatedEngine) -> None:
    until(lambda: all_alive(engine))
    kill(engine, 1)
    until(lambda: not all_alive(engine))
    assert engine.health() == ("ready", "")
    until(lambda: all_alive(engine))
    for _ in range(4):
        submit(engine, "a cat").future.result(60)


@pytest.mark.parametrize(("word", "seconds"), [("fever", 30.0), ("cough", 3.0)])
def test_a_text_that_ends_its_process_fails_alone(
    folders: dict[str, Path], word: str, seconds: float
) -> None:
    """Killed by the system, or hung and killed by the server."""
    with replicated(folders, stall_timeout=seconds) as engine:
        until(lambda: all_alive(engine))
        good = [submit(engine, text) for text in HARMLESS]
        bad = submit(engine, "a cat", f"a {word}", "a dog")
        good += [submit(engine, text) for text in HARMLESS]
        for job in good:
            assert job.future.result(120).shape == (1, 32)
        with pytest.raises(ServingError, match=r"process ended .*\(number 1\)") as failed:
            bad.future.result(120)
        assert failed.value.code == "inference_error"
        until(lambda: all_alive(engine) and engine.idle)
        assert submit(engine, "a cat").future.result(60).shape == (1, 32)
        assert counted(engine, "replica_restarts_total") == 2


def test_a_text_on_which_the_model_fails_is_told_as_with_one(engine: ReplicatedEngine) -> None:
    good, bad = submit(engine, "a cat"), submit(engine, "a headache")
    with pytest.raises(ServingError) as failed:
        bad.future.result(60)
    assert (failed.value.code, good.future.result(60).shape) == ("inference_error", (1, 32))
    assert counted(engine, "model_errors_total", kind="exception") >= 1
    assert counted(engine, "replica_restarts_total") == 0


def test_when_all_are_killed_requests_wait_or_are_told_to_come_back(
    engine: ReplicatedEngine,
) -> None:
    until(lambda: all_alive(engine))
    with running(engine, ["embedder"]) as (url, _):

        def ask() -> httpx.Response:
            return httpx.post(f"{url}/embed", json={"text": "a cat"}, timeout=60)

        with ThreadPoolExecutor(CLIENTS) as pool:
            before = [pool.submit(ask) for _ in range(CLIENTS)]
            for number in range(2):
                kill(engine, number)
            until(lambda: engine.replicas == 0)
            health, late = httpx.get(f"{url}/health"), ask()
            for found in (late, *(job.result(60) for job in before)):
                assert found.status_code in (200, 503), found.text
                assert found.status_code == 200 or found.headers["Retry-After"] == "5"
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        until(lambda: httpx.get(f"{url}/health").status_code == 200)
        assert ask().status_code == 200


@pytest.mark.parametrize("received", [True, False])
def test_a_batch_counts_against_its_texts_only_if_it_was_received(
    folders: dict[str, Path], received: bool
) -> None:
    replica = Replica(Placement("cpu", 1, []), "float32", lambda: None)
    try:
        replica.open(0, partial(open_doomed, {"embedder": folders["embedder"]}, 64))
        tokenizer = TextTokenizer(Embedder.from_pretrained(folders["embedder"]).tokenizer, 128)
        if not received:
            os.kill(replica.pid, signal.SIGSTOP)
            threading.Timer(1, replica.kill).start()
        with pytest.raises(ReplicaLost):
            replica.compute(0, "embedder", tokenizer.texts(["a fever" if received else "a"]), 60)
        assert replica.has_begun is received
    finally:
        replica.kill()


def test_stopping_ends_the_processes_and_fails_what_waits(engine: ReplicatedEngine) -> None:
    until(lambda: all_alive(engine))
    pids = [replica.pid for replica in engine.processes.values()]
    jobs = [submit(engine, "a cough") for _ in range(3)]
    until(lambda: len(engine._running) == 2)
    engine.stop()
    for job in jobs:
        with pytest.raises(ServingError) as failed:
            job.future.result(60)
        assert failed.value.code == "draining"
    engine.join(30)
    until(lambda: not any(map(is_running, pids)))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def has_failed(engine: Engine) -> bool:
    return engine.start_error is not None


def test_if_no_replica_can_start_the_error_is_that_of_one(tiny_bert: Path, tmp_path: Path) -> None:
    broken = Embedder.from_pretrained(tiny_bert)
    for weight in broken.backbone.parameters():
        weight.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    for folder, message in ((tmp_path / "broken", "not finite"), (tmp_path, "no config.json")):
        errors = []
        for start in (engine_of, replicated):
            with start({"embedder": folder}, ready=False) as engine:
                until(partial(has_failed, engine))
                errors.append(engine.start_error)
                assert engine.health()[0] == "unhealthy"
        assert message in str(errors[0])
        assert [type(error) for error in errors] == [ValueError, ValueError]
        assert str(errors[0]) == str(errors[1])


def test_a_replica_that_could_not_start_is_tried_again(folders: dict[str, Path]) -> None:
    """It is killed while it loads; the other one serves meanwhile."""
    with replicated(folders, ready=False) as engine:
        until(lambda: len(engine.processes) == 2)
        if engine.replicas == 0:
            kill(engine, 1)
        until(lambda: engine.health()[0] == "ready")
        assert submit(engine, "a cat").future.result(60).shape == (1, 32)
        until(lambda: all_alive(engine))
