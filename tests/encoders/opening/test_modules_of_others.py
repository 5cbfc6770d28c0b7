"""Modules of other libraries, which may read more than the states of single tokens."""

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

from common.prompts import with_prompt
from encoders import Embedder
from zoo import ENCODED, backbone, dense, embedder, layer_weights


def test_modules_of_others_see_neighbours_layers_and_no_prompt(tmp_path: Path) -> None:
    base = backbone(tmp_path / "base", output_hidden_states=True)
    tokens = dense(32, 32, module_input_name="token_embeddings")
    folder = embedder(
        tmp_path / "model", base, before=[layer_weights(), tokens],
        include_prompt=False, prompts={"query": "how to read a ", "document": "the "},
    )  # fmt: skip
    modules = json.loads((folder / "modules.json").read_text())
    modules[2] |= {"type": "my_sum.Sum"}
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "my_sum.py").write_text(
        "from sentence_transformers.base.modules import Dense\n\n\n"
        "class Sum(Dense):\n"
        "    def forward(self, features):\n"
        "        features = super().forward(features)\n"
        "        states = features['token_embeddings'] * features['attention_mask'][..., None]\n"
        "        features['token_embeddings'] = states + 0.1 * states.sum(1, keepdim=True)\n"
        "        return features\n"
    )
    theirs = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    model = Embedder.from_pretrained(folder, trust_remote_code=True)
    sides = {name: torch.tensor(theirs.encode(ENCODED, prompt_name=name)) for name in model.prompts}
    for name, wanted in sides.items():
        found = model.encode(ENCODED, prompt_name=name)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    batch = [with_prompt(text, model.prompts[name]) for name in sides for text in ENCODED]
    mixed = model.encode(batch, prompt="")  # of both, in one batch
    torch.testing.assert_close(mixed, torch.cat([*sides.values()]), atol=1e-5, rtol=1e-5)


def test_modules_of_others_run_with_trust_alone(tmp_path: Path) -> None:
    folder = embedder(tmp_path / "model", backbone(tmp_path / "base"), dense(32, 16))
    modules = json.loads((folder / "modules.json").read_text())
    modules[2] |= {"type": "my_head.Head"}
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "my_head.py").write_text(
        "from sentence_transformers.base.modules import Dense\n\n\n"
        "class Head(Dense):\n"
        "    def forward(self, features):\n"
        "        features = super().forward(features)\n"
        "        features['sentence_embedding'] = features['sentence_embedding'] * 2\n"
        "        return features\n"
    )
    with pytest.raises(ValueError, match=r"my_head\.Head.* trust_remote_code"):
        Embedder.from_pretrained(folder)
    theirs = SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)
    wanted = torch.tensor(theirs.encode(list(ENCODED)))
    model = Embedder.from_pretrained(folder, trust_remote_code=True)
    torch.testing.assert_close(model.encode(ENCODED), wanted, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    torch.testing.assert_close(again.encode(ENCODED), wanted, atol=1e-5, rtol=1e-5)
