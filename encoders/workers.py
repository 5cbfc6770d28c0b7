"""Work side by side on a CPU: as many threads as cores, each of which computes alone.

Cores that share every product wait for the slowest of them at every product; cores that have a
part of the batch each wait once.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Given = TypeVar("Given")
Found = TypeVar("Found")


def side_by_side(compute: Callable[[Given], Found], parts: Sequence[Given]) -> list[Found]:
    """``compute`` of each part, in their order, without gradients and with autocast as it is here.

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

    return list(_workers(torch.get_num_threads()).map(in_worker, parts))


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
