"""LoRA on a decoder of Qwen3-0.6B's shape."""

import statistics
from typing import Any

from benchmarks.on_gpu.rows import Given, Rows, peak_memory, print_rows, row_or_failure
from benchmarks.on_gpu.training import Line, train
from benchmarks.speed.turns import TANDEM


def decoder(given: Given) -> Rows:
    """With and without the gradient cache, in bf16."""
    batch, steps = (8, 2) if given.tiny else (64, 4)
    rows = given.pairs(batch * (steps + 2))
    common: dict[str, Any] = {"lora_r": 16, "pooling": "last"}
    yield ["LoRA r 16, bf16, pairs a step", "chunks", "ms a step", "pairs/s", "memory, GiB"]
    for chunk in (None, batch // 4):
        settings = common | ({"gradient_cache_chunk_size": chunk} if chunk else {})
        line = Line(TANDEM, "contrastive", True, "decoder", settings=tuple(settings.items()))
        yield row_or_failure([batch, chunk or "none"], measured, line, given, rows, batch, steps)


def measured(
    line: Line, given: Given, rows: list[dict[str, Any]], batch: int, steps: int
) -> list[Any]:
    """Time, rate and memory."""
    taken = statistics.median(train(line, given, rows, batch, steps).seconds)
    return [f"{1000 * taken:.0f}", f"{batch / taken:.0f}", peak_memory()]


if __name__ == "__main__":
    print_rows(decoder)
