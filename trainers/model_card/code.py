"""Code blocks of a model card: load the saved model with other libraries, ready to run."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from encoders.kinds import KINDS, Kind

QUERIES = ["how do I sort a list?", "怎样给列表排序？"]
DOCUMENTS = ["list.sort() sorts a list in place.", "list.sort() 原地给列表排序。"]

# From the states [N, L, H] and the mask [N, L] of texts that are padded on the right.
POOLINGS = {
    "pooling_mode_cls_token": "states[:, 0]",
    "pooling_mode_mean_tokens": "(states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1)[:, None]",
    "pooling_mode_lasttoken": "states[torch.arange(len(texts)), mask.sum(dim=1) - 1]",
}
LINEAR = 'F.linear(embeddings, {dense}["linear.weight"], {dense}.get("linear.bias"))'
ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": LINEAR,
    "torch.nn.modules.activation.Tanh": f"torch.tanh({LINEAR})",
}

# From a reranker's logit to its score.
SCORES = {
    "torch.nn.modules.activation.Sigmoid": ".sigmoid()",
    "torch.nn.modules.linear.Identity": "  # any number: the higher, the better",
}

SENTENCE_TRANSFORMERS_EMBEDDER = """\
from sentence_transformers import {opener}

model = {opener}({name})
queries = model.encode_query({queries})
documents = model.encode_document({documents})
scores = model.similarity(queries, documents)  # one row per query
print(scores)"""

SENTENCE_TRANSFORMERS_RERANKER = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder({name})
query = {query}
documents = {documents}
scores = model.predict([(query, document) for document in documents])
print(scores)"""

COSINES = "F.cosine_similarity(queries[:, None], documents[None, :], dim=-1)"
TRANSFORMERS_EMBEDDER = """\
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer
{imports}
tokenizer = AutoTokenizer.from_pretrained({name})
model = AutoModel.from_pretrained({name}).eval()
{opened}

def encode(texts):
    batch = tokenizer(
        texts, padding=True, padding_side="right", truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"]
    {steps}
    return embeddings


queries = encode({queries})
documents = encode({documents})
scores = {scores}  # one row per query
print(scores)"""

TRANSFORMERS_RERANKER = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name})
model = AutoModelForSequenceClassification.from_pretrained({name}).eval()
query = {query}
documents = {documents}
batch = tokenizer(
    [query] * len(documents), documents, padding=True, padding_side="right", truncation=True,
    return_tensors="pt",
)
with torch.no_grad():
    scores = model(**batch).logits.squeeze(-1){step}
print(scores)"""

SERVE = """\
python scripts/serve.py --model {name}
curl -s http://127.0.0.1:{port}/{route} -H 'Content-Type: application/json' -d '{body}'"""


def server_commands(kind: Kind, name: str) -> str:
    """Shell commands that serve the model (a name on the Hub, or a folder), and send a request."""
    return SERVE.format(
        name=shlex.quote(name),
        port=KINDS[kind].port,
        route=EXAMPLES[kind].route,
        body=json.dumps(EXAMPLES[kind].body, ensure_ascii=False),
    )


def code_blocks(folder: Path, kind: Kind, name: str, trust: bool) -> dict[str, str]:
    """Code by the library that it uses.

    Args:
        folder: The saved model, whose pooling, projection and prompts the code repeats.
        name: What the code calls the model: a name on the Hub, or a folder.
        trust: Whether the model needs Python code of its own.
    """
    given = f"{_text(name)}, trust_remote_code=True" if trust else _text(name)
    return EXAMPLES[kind].blocks(folder, name, given)


def _reranker_blocks(folder: Path, name: str, given: str) -> dict[str, str]:
    about = _read(folder / "config.json").get("sentence_transformers", {})
    texts = _texts(about.get("prompts", {}))
    texts["query"] = asked = _text(about.get("prompts", {}).get("query", "") + QUERIES[0])
    if (folder / "modules.json").is_file():  # CrossEncoder adds the prompt itself
        asked = _text(QUERIES[0])
    code = SENTENCE_TRANSFORMERS_RERANKER.format(name=given, **texts | {"query": asked})
    blocks = {"sentence-transformers": code}
    if step := SCORES.get(about.get("activation_fn", "")):
        blocks["transformers"] = TRANSFORMERS_RERANKER.format(name=given, **texts, step=step)
    return blocks


def _embedder_blocks(folder: Path, name: str, given: str) -> dict[str, str]:
    settings = _read(folder / "config_sentence_transformers.json")
    dot = settings.get("similarity_fn_name") == "dot"
    # SentenceTransformer adds the prompts itself.
    opener = "SentenceTransformer"
    code = SENTENCE_TRANSFORMERS_EMBEDDER.format(opener=opener, name=given, **_texts({}))
    blocks = {"sentence-transformers": code}
    if parts := _behind_the_backbone(folder, name):
        scores = "queries @ documents.T" if dot else COSINES
        parts |= _texts(settings["prompts"])
        blocks["transformers"] = TRANSFORMERS_EMBEDDER.format(name=given, scores=scores, **parts)
    return blocks


def _multi_vector_blocks(folder: Path, name: str, given: str) -> dict[str, str]:
    opener = "MultiVectorEncoder"
    code = SENTENCE_TRANSFORMERS_EMBEDDER.format(opener=opener, name=given, **_texts({}))
    return {"sentence-transformers": code}


class Example(NamedTuple):
    """What a card shows of a kind of model: a request to the server, and Python code.

    Args:
        route: Of the server.
        body: Of the request.
        blocks: Takes the folder, the model's name, and the arguments that open it.
    """

    route: str
    body: dict[str, Any]
    blocks: Callable[[Path, str, str], dict[str, str]]


PAIRS = {"query": QUERIES[0], "docs": DOCUMENTS}
EXAMPLES: dict[Kind, Example] = {
    "embedder": Example("embed_batch", {"texts": DOCUMENTS}, _embedder_blocks),
    "reranker": Example("score_batch", PAIRS, _reranker_blocks),
    "multi_vector": Example("score_batch", PAIRS, _multi_vector_blocks),
}


def _behind_the_backbone(folder: Path, name: str) -> dict[str, str] | None:
    """Code for the modules after the backbone; None if a few lines cannot express them."""
    if _read(folder / "config.json")["architectures"][0].endswith("EncoderModel"):
        return None  # half of an encoder-decoder; AutoModel would open both
    steps: list[str] = []
    opened: list[str] = []
    files: list[str] = []
    for module in _read(folder / "modules.json")[1:]:
        module_type, path = module["type"].rpartition(".")[2], module["path"]
        config = {} if module_type == "Normalize" else _read(folder / path / "config.json")
        if module_type == "Pooling":
            step = POOLINGS.get("+".join(flag for flag in config if config[flag] is True
                                         and flag.startswith("pooling_mode_")))  # fmt: skip
            step = step if config.get("include_prompt", True) else None
        elif module_type == "Dense":
            step = ACTIVATIONS.get(config["activation_function"])
            step = None if "module_input_name" in config or step is None else step.format(
                dense=f"dense{len(files) or ''}")  # fmt: skip
            files.append(f"{path}/model.safetensors")
        else:
            step = "F.normalize(embeddings, dim=-1)" if module_type == "Normalize" else None
        if step is None:
            return None
        steps.append(step)
    imports = "from safetensors.torch import load_file\n" if files else ""
    if files and not Path(name).is_dir():
        imports = "from huggingface_hub import hf_hub_download\n" + imports
    for at, path in enumerate(files):
        file = _text(f"{name}/{path}")
        if not Path(name).is_dir():
            file = f"hf_hub_download({_text(name)}, {_text(path)})"
        opened.append(f"dense{at or ''} = load_file({file})\n")
    code = "\n    ".join(f"embeddings = {step}" for step in steps)
    return {"imports": imports, "opened": "".join(opened), "steps": code}


def _texts(prompts: dict[str, str]) -> dict[str, str]:
    """The example's texts with their prompts, as Python lists."""
    sides = {"query": ("queries", QUERIES), "document": ("documents", DOCUMENTS)}
    return {
        name: "[" + ", ".join(_text(prompts.get(side, "") + text) for text in texts) + "]"
        for side, (name, texts) in sides.items()
    }


def _text(text: str) -> str:
    """A string literal in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
