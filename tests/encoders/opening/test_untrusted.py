"""A model's folder is not trusted: no pickle in it is opened and no code in it runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders import Embedder, Reranker
from encoders.kinds import detect_kind

OPENED: list[Callable[..., Any]] = [Embedder.from_pretrained, Reranker.from_pretrained, detect_kind]


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    """The file that is there once a trap was."""
    return tmp_path / "sprung"


def test_the_trap_works(tmp_path: Path, sprung: Path) -> None:
    torch.save(Trap(sprung), tmp_path / "a.bin")
    torch.load(tmp_path / "a.bin", weights_only=False)
    assert sprung.exists()


@pytest.mark.parametrize("open_model", OPENED)
def test_a_pickle_alone_is_refused(
    open_model: Callable[..., Any], tiny_classifier: Path, tmp_path: Path, sprung: Path
) -> None:
    folder = Path(shutil.copytree(tiny_classifier, tmp_path / "模型"))
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.bias": Trap(sprung)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"holds no safetensors weights .* save_pretrained"):
        open_model(folder)
    assert not sprung.exists()


@pytest.mark.parametrize("open_model", OPENED[:2])
def test_a_pickle_beside_safetensors_is_not_read(
    open_model: Callable[..., Any], tiny_classifier: Path, tmp_path: Path, sprung: Path
) -> None:
    folder = Path(shutil.copytree(tiny_classifier, tmp_path / "model"))
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "scheduler.pt"):
        torch.save(Trap(sprung), folder / name)
    open_model(folder)
    assert not sprung.exists()


def test_a_pickled_projection_is_refused(tiny_bert: Path, tmp_path: Path, sprung: Path) -> None:
    folder = tmp_path / "model"
    Embedder.from_pretrained(tiny_bert, projection_dim=8).save_pretrained(folder)
    (folder / "2_Dense" / "model.safetensors").unlink()
    torch.save({"linear.bias": Trap(sprung)}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="2_Dense holds no safetensors weights"):
        Embedder.from_pretrained(folder)
    assert not sprung.exists()


@pytest.mark.parametrize("open_model", OPENED[:2])
def test_code_in_the_folder_does_not_run(
    open_model: Callable[..., Any], tiny_classifier: Path, tmp_path: Path, sprung: Path
) -> None:
    folder = Path(shutil.copytree(tiny_classifier, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    config |= {"model_type": "own", "auto_map": dict.fromkeys(names, "own.Own")}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(sprung)!r}).touch()\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        open_model(folder)
    assert not sprung.exists()
