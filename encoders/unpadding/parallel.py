"""Data parallelism on one CPU: one thread per core, each with a part of the batch to itself.

Cores that share every matrix product wait for the slowest at each one. With a part of the batch
each, they wait once, and also draw their dropout masks at the same time.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Given = TypeVar("Given")
Found = TypeVar("Found")
Compute = Callable[[int, Tensor], tuple[Tensor, ...]]


def parallel_map(compute: Callable[[Given], Found], parts: Sequence[Given]) -> list[Found]:
    """The list of ``parallel_iter``."""
    return list(parallel_iter(compute, parts))


def parallel_iter(compute: Callable[[Given], Found], parts: Sequence[Given]) -> Iterator[Found]:
    """Compute each part in a worker thread, without gradients and under the caller's autocast.

    Yields results in the order of ``parts``, each as soon as it is there.

    Args:
        compute: Called in worker threads, each of which has one core for torch.
        parts: As many at once as torch has threads in the caller.
    """
    inference, bf16 = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def in_worker(part: Given) -> Found:
        # Not by ``torch.autocast``: on exit it drops its cache of weights converted to bf16.
        torch.set_autocast_enabled("cpu", bf16)
        torch.set_autocast_dtype("cpu", dtype)
        with torch.inference_mode(inference), torch.no_grad():
            return compute(part)

    return _workers(torch.get_num_threads()).map(in_worker, parts)


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    workers = ThreadPoolExecutor(count, "compute")
    all_begun = threading.Barrier(count)

    def begin(_: int) -> None:
        torch.get_num_threads()  # a thread's first call sets its number to the global one
        torch.set_num_threads(1)
        all_begun.wait()  # so that each thread of the pool takes exactly one of these

    list(workers.map(begin, range(count)))
    torch.set_num_threads(count)  # the last value set is what threads to come will have
    return workers


def parallel_map_with_gradients(
    compute: Callable[[int, Tensor], Any], inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Any]:
    """As ``parallel_map`` over inputs and their indices, with gradients of inputs and weights.

    Args:
        compute: Takes the index and the input of a part. Its result may nest tensors in lists,
            tuples, dictionaries and transformers' outputs.
        inputs: One for each part.
        weights: All other tensors used by ``compute`` that need a gradient.
    """
    forms: list[Any] = [None] * len(inputs)

    def flat(at: int, given: Tensor) -> tuple[Tensor, ...]:
        tensors, forms[at] = tree_flatten(compute(at, given))
        return tuple(tensors)

    found = iter(_ParallelMap.apply(flat, len(inputs), *inputs, *weights))  # type: ignore[no-untyped-call]
    return [tree_unflatten([next(found) for _ in range(form.num_leaves)], form) for form in forms]


class _ParallelMap(torch.autograd.Function):
    """Forward and backward of each part on a core of its own.

    Each part is an autograd graph by itself. Its gradients of the weights are added up in the order
    of the parts, so the sum does not depend on which thread finishes first.
    """

    @staticmethod
    def forward(ctx: Any, compute: Compute, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs of all parts, concatenated; ``tensors``: their inputs, then the weights."""
        ctx.set_materialize_grads(False)
        ctx.weights = tensors[count:]
        ctx.inputs = [given.detach().requires_grad_() for given in tensors[:count]]

        def with_graph(at: int) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                return compute(at, ctx.inputs[at])

        ctx.outputs = parallel_map(with_graph, range(count))
        return tuple(output.detach() for part in ctx.outputs for output in part)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        given = iter(gradients)
        parts = [[(output, next(given)) for output in part] for part in ctx.outputs]

        def of_part(at: int) -> tuple[Tensor | None, ...]:
            wanted = [ctx.inputs[at], *ctx.weights]
            used = [(output, own) for output, own in parts[at] if own is not None]
            if not used:
                return (None,) * len(wanted)
            outputs, own = zip(*used, strict=True)
            return torch.autograd.grad(outputs, wanted, own, allow_unused=True)

        inputs: list[Tensor | None] = []
        weights: list[Tensor | None] = [None] * len(ctx.weights)
        for own, *found in parallel_iter(of_part, range(len(parts))):
            inputs.append(own)
            weights = list(map(_added, weights, found))
        return None, None, *inputs, *weights


def _added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other  # not in place: autograd may hand out one tensor as two gradients
