"""Where replicas compute."""

import os
from collections.abc import Callable

import pytest
import torch

from serving.engine import placement
from serving.engine.placement import Placement, Replicas, find_placements

Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Pretend to be another machine."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def become(nodes: list[list[int]], quota: int | None = None, gpus: int = 0) -> None:
        cores = sum(map(len, nodes))
        monkeypatch.setattr(placement, "usable_nodes", lambda: nodes)
        monkeypatch.setattr(placement, "usable_cores", lambda: quota or cores)
        monkeypatch.setattr("common.hardware.usable_cores", lambda: quota or cores)
        if gpus:
            monkeypatch.setattr(placement, "find_device", lambda name: torch.device("cuda"))
            monkeypatch.setattr(torch.accelerator, "device_count", lambda: gpus)

    return become


TWO_NODES = [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("nodes", "quota", "replicas", "wanted"),
    [
        (TWO_NODES, None, "auto", [([0, 1, 2, 3], 4), ([4, 5, 6, 7], 4)]),
        (TWO_NODES[:1], None, "auto", [([0, 1, 2, 3], 4)]),
        (TWO_NODES, 4, "auto", [([0, 1, 2, 3], 2), ([4, 5, 6, 7], 2)]),  # a container's limit
        (TWO_NODES, 1, "auto", [([0, 1, 2, 3, 4, 5, 6, 7], 1)]),
        (TWO_NODES, None, 4, [([0, 1], 2), ([2, 3], 2), ([4, 5], 2), ([6, 7], 2)]),
        ([[0, 1, 2, 3, 4]], None, 2, [([0, 1], 2), ([2, 3, 4], 3)]),
        (TWO_NODES, None, 1, [([], 8)]),  # in the server's own process
    ],
)
def test_a_cpu_is_shared_by_nodes_or_in_equal_parts(
    machine: Machine,
    nodes: list[list[int]],
    quota: int | None,
    replicas: Replicas,
    wanted: list[tuple[list[int], int]],
) -> None:
    machine(nodes, quota)
    found = find_placements(replicas, "cpu")
    assert found == [Placement("cpu", threads, cores) for cores, threads in wanted]
    assert {placement.threads for placement in find_placements(replicas, "cpu", threads=3)} == {3}


def test_each_gpu_has_one(machine: Machine) -> None:
    machine(TWO_NODES, gpus=4)
    assert find_placements("auto", "auto") == [Placement(f"cuda:{at}", 2, []) for at in range(4)]
    assert find_placements(2, "cuda") == [Placement(f"cuda:{at}", 4, []) for at in range(2)]
    machine(TWO_NODES, gpus=1)
    assert (
        find_placements("auto", "auto") == find_placements(1, "auto") == [Placement("auto", 8, [])]
    )


def test_more_than_there_is_room_for_is_refused(machine: Machine) -> None:
    machine(TWO_NODES, quota=2)
    with pytest.raises(ValueError, match="replicas: 3 are more than the 2 cores"):
        find_placements(3, "cpu")
    machine(TWO_NODES, gpus=2)
    with pytest.raises(ValueError, match="replicas: 3 are asked for, and --device cuda is 2"):
        find_placements(3, "cuda")


def test_this_machine_has_room() -> None:
    cores = [core for placement in find_placements("auto", "cpu") for core in placement.cores]
    assert set(cores) <= os.sched_getaffinity(0)
    assert len(set(cores)) == len(cores)
