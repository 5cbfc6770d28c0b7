"""No number of rows hangs: every process takes the same steps, evaluates and saves.

TANDEM_EVERY_SIZE=1 pytest tests/trainers/test_sizes.py: 1 to 40 rows, on one process too.
"""

import json
import os
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from launching import LAUNCH, TWO_PROCESSES, finish, seen, start, write_recipes
from runs import TOPICS
from tiny import save_backbone

BATCH, ACCUMULATED = 3, 2
# Fewer rows than processes; whole batches and steps (of 6, 9, 12 and 18 rows), and others.
SIZES, PROCESSES = [1, 2, 4, 5, 7, 9, 13, 18, 19], [2, 3]
if os.environ.get("TANDEM_EVERY_SIZE"):
    SIZES, PROCESSES = list(range(1, 41)), [1, 2, 3]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is most likely to hang: negatives of all processes, and embedding in chunks."""
    folder = tmp_path_factory.mktemp("sizes")
    texts = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]
    rows = [
        {"query": texts[at % 18], "pos_doc": texts[(at * 5 + 1) % 18]} for at in range(SIZES[-1])
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return {
        "objective": "contrastive",
        "model_name_or_path": save_backbone(folder / "model", texts, num_hidden_layers=1),
        "train_file": folder / "rows.jsonl",
        "eval_file": folder / "rows.jsonl",
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "gradient_accumulation_steps": ACCUMULATED,
        "gradient_cache_chunk_size": 4,
        "num_train_epochs": 1,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
    }


@pytest.mark.slow
@pytest.mark.parametrize("processes", PROCESSES)
def test_every_process_takes_the_same_steps(
    processes: int, recipe: dict[str, Any], tmp_path: Path
) -> None:
    options = [*TWO_PROCESSES, "--num_processes", str(processes), "tests/helpers/launched_sizes.py"]
    files = write_recipes({"run": recipe}, tmp_path)
    done = finish(start([*LAUNCH, *options, *files, *map(str, SIZES)]), seconds=500)
    assert done.returncode == 0, done.stdout + done.stderr
    batches = [ceil(size / (BATCH * processes)) for size in SIZES]
    expected = [ceil(count / ACCUMULATED) for count in batches]
    assert seen(tmp_path / "run") == [expected] * processes
    for size, steps in zip(SIZES, expected, strict=True):
        assert (tmp_path / f"run-{size}" / f"checkpoint-{steps}" / "model.safetensors").is_file()
