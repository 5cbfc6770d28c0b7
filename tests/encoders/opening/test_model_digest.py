"""What is cached for a model is never taken for another's."""

import json
import shutil
from pathlib import Path

from encoders import Embedder
from encoders.opening.model_digest import model_digest


def test_dimensions_that_the_folder_cuts_off(tiny_bert: Path, tmp_path: Path) -> None:
    Embedder.from_pretrained(tiny_bert).save_pretrained(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    file = tmp_path / "cut" / "config_sentence_transformers.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "truncate_dim": 8}))
    whole, cut = (Embedder.from_pretrained(tmp_path / name) for name in ("whole", "cut"))
    assert (whole.dimension, cut.dimension) == (32, 8)
    assert model_digest(whole) != model_digest(cut)
    again = Embedder.from_pretrained(tmp_path / "cut")
    assert model_digest(again) == model_digest(cut)
    chosen = Embedder.from_pretrained(tmp_path / "whole", truncate_dim=8)
    assert model_digest(chosen) not in (model_digest(whole), model_digest(cut))
