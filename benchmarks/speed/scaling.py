"""What a run, an index or a search costs: prints the tables of docs/guide/performance.md.

    python benchmarks/speed/scaling.py
    python benchmarks/speed/scaling.py --check      # run a step here

Everything is counted from a model's shape; what cannot be counted is an assumption with a name:
``--teraflops`` (what a GPU computes in bf16 at best) and ``--utilisation`` (the share of it that a
run reaches). ``--check`` compares the count of a training step with a step that is run here.
"""

import argparse
import time
from dataclasses import dataclass

import torch

from benchmarks.speed.rates import matmul_rate

SECONDS_A_DAY = 86_400
POSITIONS = 512
QUERY, DOCUMENT = 16, 128  # tokens
FORWARDS = 3  # that a training step is worth


@dataclass(frozen=True)
class Shape:
    """A transformer: layers L, hidden width H, feed-forward width F, vocabulary V."""

    layers: int
    hidden: int
    feed_forward: int
    vocabulary: int

    @property
    def layer_parameters(self) -> int:
        """Of the matrices of all layers: four H x H and two H x F each."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.feed_forward)

    @property
    def parameters(self) -> int:
        """With embeddings; biases and norms are left out, below 1 %."""
        return self.layer_parameters + (self.vocabulary + POSITIONS) * self.hidden

    def flops(self, tokens: float) -> float:
        """Of a forward of one text: 2 for each weight and token, and the attention's products."""
        return 2 * self.layer_parameters * tokens + 4 * self.layers * self.hidden * tokens**2


MINILM = Shape(6, 384, 1536, 30_522)
BERT_BASE = Shape(12, 768, 3072, 30_522)


def state_bytes(shape: Shape, shards: int = 1) -> float:
    """Weights, gradients and AdamW's two averages in fp32, of one process of ``shards``."""
    return 16 * shape.parameters / shards


def training_table(args: argparse.Namespace, shape: Shape) -> list[str]:
    """Days of one epoch."""
    lines = ["| pairs | 1 GPU | 8 GPUs | 64 GPUs |", "|---|---|---|---|"]
    rate = args.teraflops * 1e12 * args.utilisation
    for pairs in (10**6, 10**8, 10**9):
        seconds = FORWARDS * pairs * (shape.flops(QUERY) + shape.flops(DOCUMENT)) / rate
        lines.append(f"| {pairs:,} | " + " | ".join(span(seconds / n) for n in (1, 8, 64)) + " |")
    return lines


def encoding_table(args: argparse.Namespace, shape: Shape) -> list[str]:
    """Of embedding documents, keeping and searching them."""
    lines = [
        "| documents | 1 GPU | 8 GPUs | 64 GPUs | fp32 | fp16 | 64-byte codes | exact search |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rate = args.teraflops * 1e12 * args.utilisation
    for documents in (10**6, 10**8, 10**9):
        seconds = documents * shape.flops(DOCUMENT) / rate
        times = " | ".join(span(seconds / n) for n in (1, 8, 64))
        sizes = " | ".join(size(documents * b) for b in (4 * shape.hidden, 2 * shape.hidden, 64))
        search = 2 * documents * shape.hidden / 1e9
        lines.append(f"| {documents:,} | {times} | {sizes} | {search:,.0f} GFLOP |")
    return lines


def exchange_table(shape: Shape) -> list[str]:
    """Of a step with 256 pairs on each process."""
    lines = [
        "| processes | pairs in a step | other documents and gradients | all gradients |",
        "|---|---|---|---|",
    ]
    for processes in (2, 8, 64):
        # Received for each of the others' pairs: embedding, gradient, 64-bit hash.
        gathered = size(256 * (processes - 1) * (2 * 4 * shape.hidden + 8))
        reduced = size(2 * 4 * shape.parameters)  # sent for the sum of all gradients (ring, fp32)
        lines.append(f"| {processes} | {256 * processes:,} | {gathered} | {reduced} |")
    return lines


def span(seconds: float) -> str:
    """In the unit that reads best."""
    for unit, name in ((SECONDS_A_DAY, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:,.0f} s"


def size(count: float) -> str:
    """Bytes in the unit that reads best."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count / 1e3:,.1f} kB"


def check() -> None:
    """Count one training step of MiniLM's shape and run it."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape, texts = MINILM, 64
    model = BertModel(
        BertConfig(
            num_hidden_layers=shape.layers, hidden_size=shape.hidden, num_attention_heads=12,
            intermediate_size=shape.feed_forward,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    counted = sum(weight.numel() for weight in model.parameters())
    print(f"parameters: {shape.parameters:,} by the formula, {counted:,} counted")
    ids = torch.randint(0, 30_000, (texts, DOCUMENT))
    rate, seconds = matmul_rate(torch.float32), []
    for _ in range(4):
        begun = time.perf_counter()
        model(input_ids=ids).last_hidden_state.sum().backward()
        seconds.append(time.perf_counter() - begun)
    flops = FORWARDS * texts * shape.flops(DOCUMENT)
    best = min(seconds[1:])
    print(
        f"{texts} texts of {DOCUMENT} tokens, forward and backward: {flops / 1e9:,.0f} GFLOP, "
        f"{best:.2f} s, {flops / best / 1e9:,.0f} GFLOP/s; products reach {rate / 1e9:,.0f}"
    )


def main() -> None:
    """Print the tables, or check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teraflops", type=float, default=400.0)
    parser.add_argument("--utilisation", type=float, default=0.3)
    parser.add_argument("--check", action="store_true", help="run a step here")
    args = parser.parse_args()
    if args.check:
        check()
        return
    shape = BERT_BASE
    print(f"BERT-base, queries of {QUERY} tokens, documents of {DOCUMENT}; a GPU of "
          f"{args.teraflops:g} TFLOP/s in bf16, {args.utilisation:.0%} of it used\n")  # fmt: skip
    print(f"state of AdamW: {size(state_bytes(shape))} a process, "
          f"{size(state_bytes(shape, 8))} with 8 shards\n")  # fmt: skip
    for table in (training_table(args, shape), exchange_table(shape), encoding_table(args, shape)):
        print("\n".join(table), end="\n\n")


if __name__ == "__main__":
    main()
