"""Work side by side on a CPU: as many threads as cores, each of which computes alone.

Cores that share every product wait for the slowest of them at every product; cores that have a
part of the batch each wait once, and draw their dropout at the same time.
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
    """As ``one_by_one``, all of them."""
    return list(one_by_one(compute, parts))


def one_by_one(compute: Callable[[Given], Found], parts: Sequence[Given]) -> Iterator[Found]:
    """``compute`` of each part, in their order, without gradients and with autocast as it is here.

    Each is given out as soon as it is there, while others are computed.

    Args:
        compute: Called in threads of its own, for which torch has one core each.
        parts: As many are computed at once as torch has cores here.
    """
    inference, bf16 = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def in_worker(part: Given) -> Found:
        # Not by ``torch.autocast``: at its end it forgets the weights that were turned into bf16.
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
        torch.get_num_threads()  # a thread's first question sets its number to everybody's
        torch.set_num_threads(1)
        all_begun.wait()  # so that each of the threads takes one of these

    list(workers.map(begin, range(count)))
    torch.set_num_threads(count)  # what was set last holds for threads to come
    return workers


def side_by_side_with_gradients(
    compute: Callable[[int, Tensor], Any], inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[Any]:
    """As ``parallel_map``, of each input and its number, with gradients of inputs and weights.

    Args:
        compute: May return tensors in lists, tuples, dictionaries and models' outputs.
        inputs: Of the parts.
        weights: What ``compute`` uses besides and wants a gradient.
    """
    forms: list[Any] = [None] * len(inputs)

    def flat(at: int, given: Tensor) -> tuple[Tensor, ...]:
        tensors, forms[at] = tree_flatten(compute(at, given))
        return tuple(tensors)

    found = iter(_SideBySide.apply(flat, len(inputs), *inputs, *weights))
    return [tree_unflatten([next(found) for _ in range(form.num_leaves)], form) for form in forms]


class _SideBySide(torch.autograd.Function):
    """``compute`` of each part on a core of its own, and its backward too.

    Each part is a graph by itself, whose gradients of the weights are added up in the order of the
    parts, so that they do not depend on which thread is first.
    """

    @staticmethod
    def forward(ctx: Any, compute: Compute, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Outputs of all parts, one after the other.

        Args:
            ctx: Of autograd.
            compute: The outputs of a part, from its number and its input.
            count: Parts.
            tensors: An input of each part, then the weights that want a gradient.
        """
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
        """Gradients of the inputs and of the weights."""
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
        for own, *found in one_by_one(of_part, range(len(parts))):
            inputs.append(own)
            weights = list(map(_added, weights, found))
        return None, None, *inputs, *weights


def _added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other  # not in place: autograd may hand out one tensor as two gradients
