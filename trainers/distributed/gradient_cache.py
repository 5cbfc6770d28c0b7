"""Gradient cache: embed a batch in chunks, and again in the backward pass, to save memory."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from common.similarity import widen

# Shapes: N texts of a batch, L tokens of the longest, H dimensions of an embedding.


def embed_in_chunks(
    model: nn.Module,
    texts: dict[str, Any],
    chunk_size: int,
    no_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
    at_least: int = 0,
) -> Tensor:
    """``model(**texts)`` [N, H] with its exact gradients, in the memory of ``chunk_size`` texts.

    After Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
    (2021): the first pass keeps only the embeddings; once the loss has given their gradients, each
    chunk is embedded again, with the same dropout, and backpropagates them to the weights.

    Args:
        model: May be wrapped for distributed training.
        texts: The model's inputs, [N, L] each; see ``collators.texts.model_inputs``.
        chunk_size: Texts that are embedded at once.
        no_sync: Suppresses the gradients' all-reduce; entered for all chunks but the last.
        at_least: Chunks to run; missing ones are filled with the first text, without effect.
            Processes that share a sharded model have to run equally many.
    """
    count = len(texts["input_ids"])
    chunks = [
        _trim_padding({name: values[at : at + chunk_size] for name, values in texts.items()})
        for at in range(0, count, chunk_size)
    ]
    spare = {name: values[:1] for name, values in chunks[0].items()}
    chunks += [spare] * (at_least - len(chunks))
    if not torch.is_grad_enabled():
        return _joined([model(**chunk) for chunk in chunks])[:count]
    # Autograd calls a function's backward only if an input requires a gradient.
    anchor = torch.zeros((), requires_grad=True)
    embeddings: Tensor = _Chunks.apply(anchor, model, chunks, no_sync)  # type: ignore[no-untyped-call]
    return embeddings[:count]


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, model: nn.Module, chunks: Any, no_sync: Any) -> Tensor:
        ctx.model, ctx.chunks, ctx.no_sync = model, chunks, no_sync
        ctx.random, embeddings = [], []
        for chunk in chunks:
            ctx.random.append(_random_state())
            embeddings.append(model(**chunk))
        ctx.widths = [embedded.shape[1] for embedded in embeddings]
        return _joined(embeddings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gradients = gradient.split([len(chunk["input_ids"]) for chunk in ctx.chunks])
        last = len(gradients) - 1
        for at, (chunk, own) in enumerate(zip(ctx.chunks, gradients, strict=True)):
            keep = nullcontext() if at == last else ctx.no_sync()
            with keep, _replayed(ctx.random[at]), torch.enable_grad():
                ctx.model(**chunk).backward(own[:, : ctx.widths[at]])
        return None, None, None, None


def _joined(chunks: list[Tensor]) -> Tensor:
    """Embeddings [N, H] of all chunks; vectors of tokens [N, L, H] at the width of the widest."""
    if chunks[0].dim() == 3:
        chunks = [widen(chunk, max(other.shape[1] for other in chunks)) for chunk in chunks]
    return torch.cat(chunks)


def _trim_padding(chunk: dict[str, Any]) -> dict[str, Any]:
    """Drop columns that are padding in all rows, on either side."""
    used = (chunk["host_mask"] | chunk.get("query_mask", False)).any(axis=0).nonzero()[0]
    kept = slice(int(used[0]), int(used[-1]) + 1)
    return {name: values[:, kept] for name, values in chunk.items()}


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []


@contextmanager
def _replayed(state: tuple[Tensor, list[Tensor]]) -> Iterator[None]:
    """Random numbers from ``state`` inside the block; outside, as if it had not been."""
    devices = [torch.cuda.current_device()] if state[1] else []
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(state[0])
        for own in state[1]:
            torch.cuda.set_rng_state(own)
        yield
