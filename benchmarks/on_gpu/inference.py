"""Encoding and scoring with BERT-base against sentence-transformers."""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from benchmarks.on_gpu.rows import Given, Rows, peak_memory, print_rows, row_or_failure
from benchmarks.speed.rates import forward_flops, lengths
from benchmarks.speed.turns import TANDEM, THEIRS
from encoders import Embedder, Reranker

MAX_LENGTH = 256


def inference(given: Given) -> Rows:
    """Medians of three turns after a warm-up."""
    rows = given.pairs(16 if given.tiny else 4096)
    yield ["", "task", "precision", "seconds", "against sentence-transformers",
           "of the product rate", "memory, GiB"]  # fmt: skip
    for task in ("encode", "score"):
        for bf16 in (False,) if given.tiny else (True, False):
            about = Namespace(model=str(given.folder / "bert"), task=task, max_length=MAX_LENGTH)
            best = forward_flops(about, lengths(about, rows)) / given.rate(bf16)
            seconds: list[float] = []
            for who in (THEIRS, TANDEM):
                names = [who, task, "bf16" if bf16 else "fp32"]
                yield row_or_failure(names, measured, who, task, given, rows, bf16, best, seconds)


def measured(
    who: str,
    task: str,
    given: Given,
    rows: list[dict[str, Any]],
    bf16: bool,
    best: float,
    seconds: list[float],
) -> list[Any]:
    """Time against ``best`` seconds at the product rate and against the first of ``seconds``."""
    taken = timed(prepare(who, task, given, rows, bf16))
    seconds.append(taken)
    return [f"{taken:.2f}", f"{seconds[0] / taken:.2f} x", f"{best / taken:.0%}", peak_memory()]


def prepare(
    who: str, task: str, given: Given, rows: list[dict[str, Any]], bf16: bool
) -> Callable[[], object]:
    """What is timed."""
    folder, device = str(given.folder / "bert"), given.device
    texts, pairs = [row["doc"] for row in rows], [(row["query"], row["doc"]) for row in rows]
    if who == TANDEM and task == "encode":
        embedder = Embedder.from_pretrained(folder).to(device)
        return lambda: embedder.encode(texts, max_length=MAX_LENGTH, bf16=bf16)
    if who == TANDEM:
        reranker = Reranker.from_pretrained(folder).to(device)
        return lambda: reranker.score(pairs, max_length=MAX_LENGTH, bf16=bf16)
    dtype = torch.bfloat16 if bf16 else torch.float32
    given_to_both: dict[str, Any] = {"model_kwargs": {"dtype": dtype}, "device": device}
    size: dict[str, Any] = {"batch_size": 128, "show_progress_bar": False}
    if task == "encode":
        theirs = SentenceTransformer(folder, **given_to_both)
        theirs.max_seq_length = MAX_LENGTH
        return lambda: theirs.encode(texts, **size)
    scorer = CrossEncoder(folder, num_labels=1, max_length=MAX_LENGTH, **given_to_both)
    return lambda: scorer.predict(pairs, **size)


def timed(work: Callable[[], object]) -> float:
    """Seconds; all of them hand their results to the processor, so nothing is left to wait for."""
    taken = []
    for _ in range(4):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


if __name__ == "__main__":
    print_rows(inference)
