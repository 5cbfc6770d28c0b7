"""Where replicas compute: one on each GPU, or on its share of the CPU's cores."""

from itertools import chain, pairwise
from typing import Literal, NamedTuple

import torch

from common.hardware import bf16_is_fast, process_threads, usable_cores, usable_nodes
from serving.engine.model import Precision, find_device

Replicas = int | Literal["auto"]


class Placement(NamedTuple):
    """Where a replica computes.

    Args:
        device: torch's name of it.
        threads: Of the CPU for one forward.
        cores: That it keeps to; []: any.
    """

    device: str
    threads: int
    cores: list[int]


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to multiply in bf16 on ``device``.

    Raises:
        ValueError: It is asked for on a CPU that only emulates it.
    """
    if precision == "bfloat16" and not bf16_is_fast(device):
        raise ValueError(
            "precision: this CPU has no bfloat16 instructions, and emulating them is many times "
            "slower; give auto or float32"
        )
    return precision != "float32" and bf16_is_fast(device)


def find_placements(replicas: Replicas, device: str, threads: int | None = None) -> list[Placement]:
    """The placements of all replicas.

    Args:
        replicas: How many; "auto" is one for each GPU, or for each NUMA node of the CPU.
        device: "auto" is all GPUs, if there are any; or torch's name.
        threads: Of each replica; None: its share of those of the process.

    Raises:
        ValueError: There are fewer GPUs or cores, or one device alone is asked for.
    """
    found, all_threads = find_device(device), process_threads()
    if replicas == 1:
        return [Placement(device, threads or all_threads, [])]
    if found.type == "cpu":
        shares = share_cores(replicas)
        cores = sum(map(len, shares))
        return [
            Placement("cpu", threads or max(1, len(own) * all_threads // cores), own)
            for own in shares
        ]
    most = 1 if found.index is not None and device != "auto" else torch.accelerator.device_count()
    count = most if replicas == "auto" else replicas
    if count > most:
        raise ValueError(
            f"replicas: {count} are asked for, and --device {device} is {most} of the machine's "
            "GPUs, each of which takes one; give as many, or auto"
        )
    own = threads or max(1, all_threads // count)
    return [
        Placement(device if most == 1 else f"{found.type}:{at}", own, []) for at in range(count)
    ]


def share_cores(replicas: Replicas) -> list[list[int]]:
    """The cores of each replica on the CPU, no core twice; see ``find_placements``."""
    nodes, most = usable_nodes(), usable_cores()
    count = min(len(nodes), most) if replicas == "auto" else replicas
    if count > most:
        raise ValueError(
            f"replicas: {count} are more than the {most} cores that this process may use; give "
            f"{most} or fewer, or auto"
        )
    if count == len(nodes):
        return nodes
    cores = list(chain(*nodes))
    ends = [number * len(cores) // count for number in range(count + 1)]
    return [cores[start:end] for start, end in pairwise(ends)]
