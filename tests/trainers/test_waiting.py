"""A step's loss and gradients never wait for the device: the meta device has no values to read."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import send_to_device

from common.hardware import process_threads
from runs import FORMAT_OF, NO_DROPOUT, TEXTS, write_format
from tiny import save_backbone, save_classifier
from trainers import OBJECTIVES, parse_run
from trainers.config.arguments import MOST_WORKERS, set_dataloader_defaults
from trainers.config.assembly import build_collator, open_model, read_rows

ROWS = 6
CASES: dict[str, dict[str, Any]] = {
    **{objective: {"objective": objective} for objective in OBJECTIVES},
    "all terms": {
        "objective": "contrastive",
        "loss_args": {
            "relative_margin": 0.1,
            "symmetric": True,
            "contrast_queries": True,
            "contrast_documents": True,
            "hardness": 1.0,
        },
    },
    "in chunks": {"objective": "contrastive", "gradient_cache_chunk_size": 3},
    "prefixes": {"objective": "contrastive", "matryoshka_dims": [32, 8]},
    "vectors of tokens in chunks": {
        "objective": "multi_vector_contrastive",
        "loss_args": {"relative_margin": 0.1, "symmetric": True, "hardness": 1.0},
        "gradient_cache_chunk_size": 3,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, without dropout, whose masks are drawn on the host for a CPU."""
    folder = tmp_path_factory.mktemp("waiting")
    for kind in ("embedder", "multi_vector"):
        save_backbone(folder / kind, TEXTS, **NO_DROPOUT)
    save_classifier(folder / "reranker", TEXTS, **NO_DROPOUT)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_step_reads_nothing_back(name: str, folder: Path, tmp_path: Path) -> None:
    objective = CASES[name]["objective"]
    recipe = {
        "model_name_or_path": str(folder / OBJECTIVES[objective].model),
        "train_file": str(write_format(FORMAT_OF[objective], tmp_path)),
        "output_dir": str(tmp_path / "run"),
        **CASES[name],
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    run = parse_run(["--config", str(tmp_path / "recipe.json")])
    model = open_model(run)
    collator = build_collator(run, model)
    rows = read_rows(run, run.args.train_file, "rejected_rows.jsonl")
    trainer = run.build_trainer(model=model, data_collator=collator, train_dataset=rows)
    numbered: Any = trainer.train_dataset
    device = torch.device("meta")
    batch = collator([numbered[at] for at in range(ROWS)])
    texts = batch["texts"]
    assert np.array_equal(texts["host_mask"], texts["attention_mask"].bool())
    # A worker moves tensors to shared memory, and views of them would be left behind.
    assert not np.shares_memory(texts["host_mask"], texts["attention_mask"].numpy())
    batch = send_to_device(batch, device)
    trainer.model.to(device).train()
    loss: Any = trainer.compute_loss(
        trainer.model, batch, num_items_in_batch=torch.tensor(float(ROWS), device=device)
    )
    loss.backward()
    gradients = [weight.grad for weight in trainer.model.parameters()]
    assert any(gradient is not None and gradient.is_meta for gradient in gradients)
    # What shows that the test can fail: nobody has handed over the mask.
    del batch["texts"]["host_mask"]
    with pytest.raises((RuntimeError, NotImplementedError, KeyError)):
        trainer.compute_loss(trainer.model, batch)


@pytest.mark.parametrize(
    ("gpu", "given", "workers", "config"),
    [
        (False, {}, 0, None),
        (True, {}, min(MOST_WORKERS, process_threads() - 1), {"non_blocking": True}),
        (True, {"dataloader_num_workers": 7}, 7, {"non_blocking": True}),
        (True, {"dataloader_pin_memory": False}, None, {"non_blocking": False}),
        (True, {"accelerator_config": {"non_blocking": False}}, None, {"non_blocking": False}),
    ],
)
def test_a_gpu_is_kept_fed(gpu: bool, given: Any, workers: int | None, config: Any) -> None:
    left_open = {"dataloader_num_workers": None, "accelerator_config": None}
    args: Any = SimpleNamespace(**{**left_open, "dataloader_pin_memory": True, **given})
    set_dataloader_defaults(args, gpu)
    assert workers is None or args.dataloader_num_workers == workers
    assert args.accelerator_config == config
