"""How good are truncated embeddings, with and without Matryoshka training?

    python benchmarks/quality/matryoshka.py --data ../shared/data/scifact --record

An embedder of 384 dimensions is trained on the folder's train part (BEIR layout), with
matryoshka_dims and without, and measured on its test part with all dimensions and with fewer.
``--record`` puts the table into benchmarks/RESULTS.md.
"""

import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.quality.quality import METRIC, Task, train
from benchmarks.speed.results import BASE, new_parser, publish, quiet
from common.hardware import prepare_cpu
from encoders import Embedder
from evaluation import per_query
from evaluation.search.exact import search

DIMS = [384, 192, 96, 48]
PLAIN, MATRYOSHKA = "contrastive", "contrastive with matryoshka_dims"


def main() -> None:
    """Train both, measure all lengths, print, record."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a folder in the BEIR layout")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--query_max_length", type=int, default=64)
    add("--document_max_length", type=int, default=128)
    add("--flags", default="--max_steps -1 --num_train_epochs 1 --learning_rate 2e-5")
    args = parser.parse_args()
    quiet()
    prepare_cpu(training=True)
    found: dict[str, list[list[float]]] = {"base": [], PLAIN: [], MATRYOSHKA: []}
    with tempfile.TemporaryDirectory() as folder:
        task = Task(args, Path(folder))
        found["base"].append(measure(task, BASE))
        for seed in args.seeds:
            for name in (PLAIN, MATRYOSHKA):
                flags = ["--matryoshka_dims", *map(str, DIMS)] if name == MATRYOSHKA else []
                tuned = train(task, name, "embedding_contrastive", seed, task.pairs, *flags)
                found[name].append(measure(task, str(tuned)))
    means = {name: torch.tensor(runs).mean(dim=0).tolist() for name, runs in found.items()}
    publish(
        args,
        "matryoshka",
        f"{BASE} on {args.data.name}, {args.flags}, seeds {', '.join(map(str, args.seeds))}, "
        f"documents cut at {args.document_max_length} tokens: {METRIC} by dimensions.",
        ["", *map(str, DIMS)],
        [(name, *(f"{mean:.4f}" for mean in figures)) for name, figures in means.items()],
    )


def measure(task: Task, model: str) -> list[float]:
    """The metric with each number of dimensions."""
    embedder, data = Embedder.from_pretrained(model), task.data
    queries, documents = (
        embedder.encode(list(texts.values()), prompt_name=name, max_length=length)
        for texts, name, length in (
            (data.queries, "query", task.args.query_max_length),
            (data.documents, "document", task.args.document_max_length),
        )
    )
    values = []
    for dim in DIMS:
        cut = [F.normalize(side[:, :dim], dim=-1) for side in (queries, documents)]
        run = search(*cut, list(data.documents), 10, query_ids=list(data.queries))
        values.append(float(per_query(run, data.qrels, [METRIC])[METRIC].mean()))
    print(model, *(f"{value:.4f}" for value in values), flush=True)
    return values


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
