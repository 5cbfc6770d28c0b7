"""Memory of a step of contrastive training: padded, unpadded, with gradient caching.

    python benchmarks/speed/memory.py --record
    python benchmarks/speed/memory.py --max_length 64 --cached 1024 4096 --chunk_size 64

Each line is one step of scripts/train.py, in a process of its own, on the quick start's pairs; the
peak is that of the process (on a GPU: of PyTorch's allocator). The first line, a batch of one pair,
is what model, optimiser, rows and libraries need by themselves.
``--record`` puts the table into benchmarks/RESULTS.md.
"""

import argparse

import torch

from benchmarks.speed.results import BASE, PAIRS, new_parser, publish, train

GPU_PEAK = (
    "import runpy, sys, torch; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], "
    "run_name='__main__'); print('PEAK', torch.cuda.max_memory_allocated())"
)


def main() -> None:
    """Run line after line, print the table, record it."""
    parser = new_parser(__doc__)
    parser.add_argument("--data", default=PAIRS)
    parser.add_argument("--model", default=BASE)
    parser.add_argument("--max_length", type=int, default=256, help="tokens of a document")
    parser.add_argument("--padded", nargs="*", type=int, default=[64], help="batch sizes")
    parser.add_argument("--plain", nargs="*", type=int, default=[64, 256], help="batch sizes")
    parser.add_argument("--cached", nargs="*", type=int, default=[64, 256, 1024, 4096])
    parser.add_argument("--chunk_size", type=int, default=32)
    args = parser.parse_args()
    chunks = ["--gradient_cache_chunk_size", str(args.chunk_size)]
    wanted: list[tuple[str, int, list[str]]] = [("nothing but one pair", 1, [])]
    wanted += [("padded", size, ["--unpad_inputs", "false"]) for size in args.padded]
    wanted += [("unpadded", size, []) for size in args.plain]
    wanted += [(f"unpadded, chunks of {args.chunk_size}", size, chunks) for size in args.cached]
    rows: list[tuple[str, ...]] = []
    least = 0.0
    for name, size, more in wanted:
        peak = step(args, size, more) / 2**20
        least = least or peak
        rows.append((name, f"{size:,}", f"{peak:,.0f}", f"{peak - least:,.0f}"))
        print(*rows[-1], flush=True)
    publish(
        args,
        f"memory, documents of {args.max_length} tokens",
        f"One step of contrastive training of {args.model} in fp32 on docstring pairs, documents "
        f"cut at {args.max_length} tokens: the most that the process held.",
        ["", "batch", "peak, MiB", "more than one pair, MiB"],
        rows,
    )


def step(args: argparse.Namespace, batch_size: int, more: list[str]) -> int:
    """The most bytes held in one step."""
    given = ["--objective", "contrastive", "--model_name_or_path", args.model]
    given += ["--train_file", args.data, "--train_group_size", "2", "--max_steps", "1"]
    given += ["--document_max_length", str(args.max_length), "--query_max_length", "64"]
    given += ["--per_device_train_batch_size", str(batch_size), *more]
    if torch.cuda.is_available():
        return int(train(given, ["-c", GPU_PEAK, "scripts/train.py"]).log.split("PEAK")[-1])
    return train(given).memory


if __name__ == "__main__":
    main()
