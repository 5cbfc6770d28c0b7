"""scripts/serve.py from the command line's point of view."""

import json
import logging
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from common.flags import parse
from common.hardware import bf16_is_fast, multiplies_in_bf16
from encoders import Embedder, MultiVectorEncoder, Reranker
from encoders.kinds import Kind
from scripts.serve import find_loadable, find_port, main, set_up
from served import Process, until
from serving.http.auth import read_keys
from serving.http.server import listen
from serving.routes.openai import LoadBody
from serving.served_models import ModelToServe, find_models
from serving.settings import ServeSettings
from tiny import TEXTS, save_backbone, save_classifier

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the script sets for its process."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    root, interval, threads = logging.getLogger(), sys.getswitchinterval(), torch.get_num_threads()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


def refused(capsys: pytest.CaptureFixture[str], *flags: object) -> str:
    """The one line after which the script ends with status 2."""
    assert main([str(flag) for flag in flags]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    return lines[0]


def parse_settings(argv: list[str]) -> ServeSettings:
    return parse(ServeSettings, argv, None)


def models_of(args: ServeSettings) -> dict[str, ModelToServe]:
    return find_models(args.given(), args.baseline, args.served_model_name)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training run: a final model and two checkpoints."""
    folder = save_backbone(tmp_path / "run")
    (folder / "train_config.json").write_text("{}")
    for number, seed in ((64, 1), (128, 2)):
        save_backbone(folder / f"checkpoint-{number}", seed=seed)
    return folder


def test_the_task_and_its_port(tiny_bert: Path, tiny_classifier: Path) -> None:
    def found(*flags: object) -> tuple[list[Kind], int]:
        args = parse_settings([str(flag) for flag in flags])
        models = models_of(args)
        return [model.kind for model in models.values()], find_port(args, models)

    assert found("--model", tiny_bert) == (["embedder"], 8001)
    assert found("--model", tiny_classifier) == (["reranker"], 8002)
    both = found("--embedder", tiny_bert, "--reranker", tiny_classifier)
    assert both == (["embedder", "reranker"], 8000)
    assert found("--model", tiny_bert, "--port", 9)[1] == 9
    base = found("--model", tiny_classifier, "--baseline", tiny_classifier)
    assert base == (["reranker", "reranker"], 8002)


def test_a_model_that_does_not_say_its_task(tiny_classifier: Path, tmp_path: Path) -> None:
    silent = shutil.copytree(tiny_classifier, tmp_path / "silent")
    config = json.loads((silent / "config.json").read_text())
    del config["architectures"]
    (silent / "config.json").write_text(json.dumps(config))
    args = parse_settings(["--model", str(silent), "--task", "reranker"])
    assert models_of(args)["reranker"].kind == "reranker"


def test_of_a_run_the_best_checkpoint_is_served_or_else_the_final_model(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def served() -> tuple[str, str]:
        caplog.clear()
        with caplog.at_level("INFO"):
            (model,) = models_of(ServeSettings(model=str(run))).values()
        return Path(model.folder).resolve().name, caplog.text

    folder, said = served()
    assert folder == "run"
    assert "the run's final model" in said
    for noted, wanted in (("checkpoint-64", "checkpoint-64"), (".", "run")):
        (run / "best_checkpoint.json").write_text(json.dumps({"checkpoint": noted}))
        folder, said = served()
        assert folder == wanted
        assert "the run's best" in said
        assert models_of(ServeSettings(model=str(run)))["embedder"].name == "run"
    fusion = run / "fusion.json"  # of the final model, which is the best by now
    fusion.touch()
    assert served()[0] == "run"
    (run / "best_checkpoint.json").write_text('{"checkpoint": "checkpoint-64"}')
    with pytest.raises(ValueError, match=r"fusion.json: is of the final model, and .*-64; choose"):
        served()
    fusion.unlink()
    (run / "best_checkpoint.json").write_text('{"checkpoint": "checkpoint-999"}')
    with pytest.raises(ValueError, match="checkpoint-999 is not there any more"):
        served()
    (run / "best_checkpoint.json").write_text('{"checkpoint": ".", "metric": "m", "value": null}')
    assert "the run's best: as noted" in served()[1]
    for damaged, why in (("{", " cannot be read"), ("{}", ": names no"), ("[1]", ": names no")):
        (run / "best_checkpoint.json").write_text(damaged)
        with pytest.raises(ValueError, match=f"best_checkpoint.json{why}"):
            served()
    (run / "best_checkpoint.json").unlink()
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no final model; give one of its checkpoint-N"):
        served()


def test_what_the_user_can_mend_is_one_line(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def copy(name: str, of: Path = tiny_bert) -> Path:
        return shutil.copytree(of, tmp_path / name)

    assert "error: /no/such/model is neither a folder" in refused(
        capsys, "--model", "/no/such/model"
    )
    assert "model: give --model, or --embedder and --reranker" in refused(capsys)
    alone = refused(capsys, "--model", "m", "--collection", "mine")
    assert "collection: is of a store; give --store" in alone
    of_another_kind = refused(capsys, "--model", tiny_bert, "--max_length", 9)
    assert "max_length: is for a reranker; an embedder's is text_max_length" in of_another_kind
    for name in ("text_max_length", "truncate_dim"):
        assert f"{name}: is for an embedder" in refused(
            capsys, "--model", tiny_classifier, f"--{name}", 9
        )
    assert "cannot be served as embedder" in refused(
        capsys, "--model", tiny_classifier, "--task", "embedder"
    )
    assert "cannot be served as reranker" in refused(
        capsys, "--embedder", tiny_bert, "--reranker", tiny_bert
    )
    assert "is of kind reranker, and no" in refused(
        capsys, "--model", tiny_bert, "--baseline", tiny_classifier
    )
    pickled = copy("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "no safetensors weights" in refused(capsys, "--model", pickled)
    coded = copy("coded")
    config = json.loads((coded / "config.json").read_text())
    (coded / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    assert "auto_map" in refused(capsys, "--model", coded)
    for damaged in ("{", "\ufeff{}", "[]"):
        (coded / "config.json").write_text(damaged, encoding="utf-8")
        assert f"error: {coded / 'config.json'}" in refused(capsys, "--model", coded)
    for number, reason in ((0, "must be auto or at least 1"), ("many", "not one of auto, an int")):
        assert reason in refused(capsys, "--model", tiny_bert, "--replicas", number)
    assert "replicas: 9999 are more than" in refused(
        capsys, "--model", tiny_bert, "--replicas", 9999, "--device", "cpu"
    )
    assert "did you mean max_items" in refused(capsys, "--model", tiny_bert, "--max_item", 3)
    assert "must be more than 0" in refused(capsys, "--model", tiny_bert, "--max_wait", 0)
    assert "65535" in refused(capsys, "--model", tiny_bert, "--port", 70000)
    assert "cannot be used" in refused(capsys, "--model", tiny_bert, "--device", "gpu")
    keys = tmp_path / "keys"
    keys.write_text("\n")
    assert "holds no key" in refused(capsys, "--model", tiny_bert, "--api_key_file", keys)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"_id": "a"\n')
    assert f"{corpus}:1" in refused(capsys, "--model", tiny_bert, "--corpus", corpus)
    with listen("127.0.0.1", 0) as taken:  # as by another server that loads its model
        port = taken.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert "cannot be used" in refused(capsys, "--model", tiny_bert, "--port", port)


def test_a_model_that_cannot_be_loaded_ends_the_server(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is seen only when the weights are opened."""
    broken = shutil.copytree(tiny_bert, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    assert "cannot be opened" in refused(capsys, "--port", 0, "--model", broken)
    three = save_classifier(tmp_path / "three", num_labels=3)
    refused(capsys, "--port", 0, "--model", three)
    flags = ("--port", 0, "--max_length", 5000, "--model", tiny_classifier)
    assert "at most 128" in refused(capsys, *flags)
    precise = ("--port", 0, "--precision", "bfloat16", "--device", "cpu", "--model", tiny_bert)
    if not bf16_is_fast(Embedder.from_pretrained(tiny_bert).device):
        assert "no bfloat16 instructions" in refused(capsys, *precise)


def test_keys_stand_in_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TANDEM_API_KEY", raising=False)
    assert read_keys(None) == []
    monkeypatch.setenv("TANDEM_API_KEY", "one two")
    assert read_keys(None) == ["one", "two"]
    monkeypatch.setenv("TANDEM_API_KEY", " ")
    with pytest.raises(ValueError, match="TANDEM_API_KEY: is set, and holds no key"):
        read_keys(None)
    file = tmp_path / "keys"
    file.write_text("three\n\nfour\n")
    assert read_keys(file) == ["three", "four"]
    file.write_text("three\r\nfour\r\n", encoding="utf-8-sig")  # as Windows' editors save it
    assert read_keys(file) == ["three", "four"]


def test_the_config_file_says_the_defaults(tiny_bert: Path) -> None:
    given = parse_settings(
        ["--config", str(ROOT / "configs/serving.json"), "--model", str(tiny_bert)]
    )
    assert given == ServeSettings(model=str(tiny_bert))
    flags = ["--config", str(ROOT / "configs/serving.json"), "--model", "m", "--max_items", "7"]
    assert parse_settings(flags).max_items == 7


def test_help_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for name in ServeSettings.__dataclass_fields__:
        assert f"--{name} " in said


IN_BF16 = pytest.param("bfloat16", 2e-2, marks=pytest.mark.skipif(
    not multiplies_in_bf16(), reason="this processor does not multiply in bf16"))  # fmt: skip


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), IN_BF16])
def test_both_models_served(
    precision: str, tolerance: float, tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    """In a process of its own: answers, the log, keys that stay secret, files that go away.

    In bf16, unit vectors of 32 dimensions and probabilities are rounded to 8 bits a few times.
    """
    embedder = shutil.copytree(tiny_bert, tmp_path / "embedder")
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"_id": f"d{at}", "text": text} for at, text in enumerate(TEXTS)]
    corpus.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    flags = ["--embedder", embedder, "--reranker", tiny_classifier, "--corpus", corpus]
    flags += ["--precision", precision]
    flags += ["--log_json", "true"]
    with Process(tmp_path, *flags, key="very-secret", fresh=precision == "float32") as server:
        shutil.rmtree(embedder)
        with httpx.Client(
            base_url=server.url, headers={"X-API-Key": "very-secret"}, timeout=60
        ) as client:
            vector = client.post("/embed", json={"text": TEXTS[0]}).json()["embedding"]
            wanted = Embedder.from_pretrained(tiny_bert).encode(TEXTS[:1])[0]
            np.testing.assert_allclose(vector, wanted.numpy(), atol=tolerance)
            pair = {"query": TEXTS[0], "doc": TEXTS[1]}
            score = client.post("/score", json=pair).json()["score"]
            reranker = Reranker.from_pretrained(tiny_classifier)
            known = reranker.score([(TEXTS[0], TEXTS[1])]).item()
            assert score == pytest.approx(known, abs=tolerance)
            hits = client.post("/search", json={"query": "secret words"}).json()["results"]
            assert {hit["id"] for hit in hits} <= {row["_id"] for row in rows}
            assert len(hits) == 10
            assert client.get("/info").json()["model_id"] == "embedder"
        assert httpx.post(f"{server.url}/embed", json={"text": "a"}).status_code == 401
        server.terminate()
        assert server.process.wait(30) == 0
    if "GOMP_SPINCOUNT" in server.text:  # GNU's OpenMP, which torch has on Linux
        assert "GOMP_SPINCOUNT = '100000'" in server.text  # threads that wait leave their cores
    lines = [line for line in server.text.splitlines() if line.startswith("{")]
    requests = [entry for entry in map(json.loads, lines) if entry["event"] == "request"]
    routes = {(entry["route"], entry["status"]) for entry in requests}
    assert {("/embed", 200), ("/score", 200), ("/search", 200)} <= routes
    assert any(entry["status"] == 401 and entry["code"] == "invalid_api_key" for entry in requests)
    assert all({"request_id", "method", "ms"} <= entry.keys() for entry in requests)
    assert "secret" not in server.text
    assert "csv" not in server.text


def test_models_are_loaded_by_the_rules_of_the_flags(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    second = save_backbone(tmp_path / "second", seed=1)
    text = {"text": TEXTS[0]}
    with (
        Process(
            tmp_path, "--model", tiny_bert, "--allow_loading", "true", "--precision", "float32"
        ) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for body, message in (
            ({"model": str(tiny_classifier)}, "serves embedder"),
            ({"embedder": str(second), "reranker": str(tiny_classifier)}, "serves embedder"),
            ({}, "give --model"),
            ({"model": str(tmp_path / "nowhere")}, "nowhere"),
        ):
            answer = client.put("/models/new", json=body)
            assert answer.status_code == 422
            assert message in answer.json()["error"]["message"]
        assert client.put("/models/new", json={"model": str(second)}).status_code == 200
        until(lambda: client.get("/models/new").json()["state"] == "ready")
        found = client.post("/models/new/embed", json=text).json()
        wanted = Embedder.from_pretrained(second).encode([TEXTS[0]])[0]
        assert found["model"] == "new"
        assert found["embedding"] == pytest.approx(wanted.tolist(), abs=1e-5)
        assert client.post("/embed", json=text).json()["model"] == tiny_bert.name
        client.post("/models/new/activate")
        assert client.post("/embed", json=text).json()["model"] == "new"


def test_an_embedder_is_not_replaced_by_what_makes_no_embeddings(
    tiny_bert: Path, tmp_path: Path
) -> None:
    late = tmp_path / "late"
    MultiVectorEncoder.from_pretrained(tiny_bert).save_pretrained(late)
    args = parse_settings(["--model", str(tiny_bert), "--store", f"qdrant:{tmp_path}/store"])
    served = find_models(args.given(), None, None, stores=True)
    find_loadable(args, served, "new", LoadBody.model_validate({"model": str(tiny_bert)}))
    with pytest.raises(ValueError, match="models of the same kinds"):
        find_loadable(args, served, "new", LoadBody.model_validate({"model": str(late)}))


def test_a_server_without_a_key_for_all_the_world_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for host, keys, warned in (("0.0.0.0", False, True), ("0.0.0.0", True, False), ("::1", 0, 0)):
        caplog.clear()
        set_up(ServeSettings(model="m", host=host), bool(keys))
        assert ("there is no API key" in caplog.text) == bool(warned)
