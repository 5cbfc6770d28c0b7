"""Set up a process for a CPU: thread count by affinity and cgroups, malloc, kernel caches, bf16."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

# Values of ONEDNN_MAX_CPU_ISA below bf16.
WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
CGROUP = Path("/sys/fs/cgroup")  # where cgroups are mounted
MEMBERSHIP = Path("/proc/self/cgroup")  # lists those of this process
SYSTEM = Path("/sys/devices/system")  # describes nodes and cores
# Parameters of glibc's mallopt.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
# Capacity of the kernel caches of oneDNN (per process) and torch (per thread). Every shape of a
# matrix product has a kernel of 100 kB to 1 MB; training reuses thousands of shapes in every step.
KERNELS, KERNELS_OF_THREAD = 256, 32
TRAINING_KERNELS = 20_000


def prepare_cpu(training: bool = False) -> None:
    """Set threads, malloc and kernel caches for CPU work. Call it before any computation.

    - Threads: torch does not see a container's CPU quota, and ``accelerate launch`` leaves each
      process one thread.
    - malloc: glibc returns large blocks to the system as soon as they are free. A training step
      needs the same ones again, and page faults cost more than the computation that fills them.
    - Kernels: oneDNN compiles one per shape. Batches without padding keep bringing new shapes,
      whose kernels would fill the memory.

    With a GPU, only a thread count above the usable cores is lowered.

    Args:
        training: Keep more kernels.
    """
    threads, on_gpu = process_threads(), torch.accelerator.is_available()
    if not on_gpu or threads < torch.get_num_threads():
        torch.set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")  # numpy's BLAS is loaded by now
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries loaded later
    if on_gpu:
        return
    kernels = TRAINING_KERNELS if training else KERNELS
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(kernels))
    if not training:
        os.environ.setdefault("LRU_CACHE_CAPACITY", str(KERNELS_OF_THREAD))
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            mallopt(MMAP_MAX, 0)
            mallopt(TRIM_THRESHOLD, 2**31 - 1)


def multiplies_in_bf16() -> bool:
    """Whether this CPU has bf16 instructions (AVX512-BF16 or AMX) and oneDNN may use them.

    Intel: Cooper Lake, and from Sapphire Rapids on. AMD: from Zen 4 on.
    """
    return (
        os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() not in WITHOUT_BF16
        and torch.cpu._is_avx512_bf16_supported()
    )


def process_threads() -> int:
    """Threads for this process: OMP_NUM_THREADS, or its share of the machine's usable cores.

    torchrun and accelerate set OMP_NUM_THREADS to 1 where it is unset: launched processes ignore 1.
    """
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    launched = {"LOCAL_WORLD_SIZE", "ACCELERATE_USE_CPU"} & os.environ.keys()
    if chosen.isdecimal() and int(chosen) > 0 and not (launched and chosen == "1"):
        return int(chosen)
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def usable_cores() -> int:
    """Cores by affinity (taskset, cpusets) and CPU quota (cgroups v2 and v1), at least 1."""
    # Only Linux has an affinity; macOS and Windows tell how many cores there are.
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas()])))


def usable_nodes() -> list[list[int]]:
    """Numbers of the cores by affinity, one list for each NUMA node that has some.

    The hardware threads of a core stand side by side. Where the system does not tell its nodes,
    all cores are of one.
    """
    known = hasattr(os, "sched_getaffinity")
    allowed = os.sched_getaffinity(0) if known else set(range(os.cpu_count() or 1))
    files = sorted((SYSTEM / "node").glob("node*/cpulist"))
    nodes = [allowed & _numbers(file) for file in files]
    if set().union(*nodes) != allowed:
        nodes = [allowed]

    def first_thread(core: int) -> tuple[int, int]:
        file = SYSTEM / f"cpu/cpu{core}/topology/thread_siblings_list"
        return min(_numbers(file), default=core), core

    return [sorted(node, key=first_thread) for node in nodes if node]


def _numbers(file: Path) -> set[int]:
    """Numbers as Linux lists them, "0-3,8"; none, where there is no such file."""
    found: set[int] = set()
    with suppress(OSError):
        for part in file.read_text(encoding="ascii").strip().split(","):
            first, _, last = part.partition("-")
            if first:
                found |= set(range(int(first), int(last or first) + 1))
    return found


def _quotas() -> Iterator[float]:
    """The quotas, in cores, of this process's cgroups and all their parents."""
    # Inside a container its own cgroup is mounted as the root, under whatever name it has outside.
    lines = ["0::/", "0:cpu:/"]
    with suppress(OSError):
        lines += MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = {controllers, "cpu"} if "cpu" in controllers.split(",") else {"", "unified"}
        if controllers and "" in names:
            continue
        inner = Path(path.lstrip("/"))
        for name in sorted(names):
            for group in (inner, *inner.parents):
                with suppress(OSError, ValueError):
                    yield _quota(CGROUP / name / group, version=1 if controllers else 2)


def _quota(group: Path, version: int) -> float:
    """A cgroup's CPU quota in cores; infinity: unlimited.

    Raises:
        OSError: The cgroup has no such file.
    """
    if version == 2:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    else:
        quota, period = (
            (group / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
            for name in ("quota", "period")
        )
    return float("inf") if quota in ("max", "-1") else int(quota) / int(period)


def bf16_is_fast(device: torch.device) -> bool:
    """Whether ``device`` has bf16 instructions; a CPU that emulates them is many times slower."""
    return device.type != "cpu" or multiplies_in_bf16()
