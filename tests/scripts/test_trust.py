"""A model with Python code of its own: refused without trust, opened with it by every script."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoders import Embedder, Reranker
from runs import ROOT, train
from tiny import TEXTS
from zoo import backbone, change_json


@pytest.fixture(autouse=True)
def no_code_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of a model's folder stay imported, and trust is asked for no second time."""
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)


def with_code(folder: Path, labels: int | None = None) -> Path:
    """A BERT that transformers knows only by the code in its folder."""
    backbone(folder, labels=labels)
    base = "BertModel" if labels is None else "BertForSequenceClassification"
    auto = "AutoModel" if labels is None else "AutoModelForSequenceClassification"
    (folder / "own_configuration.py").write_text(
        "from transformers import BertConfig\n\n\n"
        'class OwnConfig(BertConfig):\n    model_type = "own_kind"\n'
    )
    (folder / "own_modeling.py").write_text(
        f"from transformers import {base}\n\nfrom .own_configuration import OwnConfig\n\n\n"
        f"class Own{base}({base}):\n    config_class = OwnConfig\n"
    )
    change_json(
        folder / "config.json",
        model_type="own_kind",
        architectures=[f"Own{base}"],
        auto_map={"AutoConfig": "own_configuration.OwnConfig", auto: f"own_modeling.Own{base}"},
    )
    return folder


def write_rows(folder: Path) -> Path:
    rows = [{"query": text, "pos": [text], "neg": [TEXTS[at - 1]]} for at, text in enumerate(TEXTS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def script(name: str) -> Callable[[list[str]], Any]:
    main: Callable[[list[str]], Any] = runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))["main"]
    return main


def commands(folder: Path) -> dict[str, list[Any]]:
    embedder, reranker = with_code(folder / "embedder"), with_code(folder / "reranker", 1)
    rows, out = write_rows(folder), folder / "out"
    mining = ["--input", rows, "--output", out / "mined.jsonl", "--cache_dir", folder / "cache"]
    ranks = ["--rank_range", 1, 9, "--num_negatives", 1]
    return {
        "evaluate": ["--data", rows, "--model", embedder, "--baseline", embedder,
                     "--output_dir", out / "report"],
        "evaluate a reranker": ["--data", rows, "--model", reranker, "--output_dir", out / "two"],
        "mine_negatives": [*mining, "--embedder", embedder, *ranks],
        "mine_negatives by both": [*mining, "--embedder", embedder, "--reranker", reranker, *ranks],
        "score_with_teacher": ["--input", rows, "--output", out / "scored.jsonl",
                               "--cache_dir", folder / "cache", "--model", reranker],
        "export": ["--model", embedder, "--format", "fp16", "--output_dir", out / "half",
                   "--data", rows, "--max_drop", 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "evaluate",
        "evaluate a reranker",
        "mine_negatives",
        "mine_negatives by both",
        "score_with_teacher",
        "export",
    ],
)
def test_every_script_that_opens_a_model_has_the_flag(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    command = [str(part) for part in commands(tmp_path)[name]]
    main = script(name.split()[0])
    assert main(command) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "trust_remote_code" in said[0]
    assert main([*command, "--trust_remote_code"]) == 0


@pytest.mark.parametrize("objective", ["contrastive", "listwise"])
def test_a_run_remembers_it(objective: str, tmp_path: Path) -> None:
    """For its best checkpoint, its evaluations and where it goes on."""
    kind: type[Any] = Embedder if objective == "contrastive" else Reranker
    model = with_code(tmp_path / "model", None if kind is Embedder else 1)
    settings: dict[str, Any] = {
        "objective": objective, "model_name_or_path": model, "train_file": write_rows(tmp_path),
        "eval_file": tmp_path / "rows.jsonl", "trust_remote_code": True, "save_steps": 1,
        "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps",
        "per_device_train_batch_size": 4, "load_best_model_at_end": True,
    }  # fmt: skip
    output = train(tmp_path / "run", max_steps=2, **settings)
    train(tmp_path / "run", max_steps=3, resume_from_checkpoint=True, **settings)
    with pytest.raises(ValueError, match="trust_remote_code"):
        kind.from_pretrained(output)
    kind.from_pretrained(output, trust_remote_code=True)
