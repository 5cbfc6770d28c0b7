"""Settings of a process that computes on a CPU: cores, memory, kernels."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

# Values of ONEDNN_MAX_CPU_ISA that keep oneDNN from instructions for bf16.
WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
# glibc's names for what mallopt sets.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
# Kernels that oneDNN keeps for the process, and torch for each thread: there is one for every shape
# of a product, of some 100 kB to 1 MB. Training meets thousands of shapes again in every step.
KERNELS, KERNELS_OF_THREAD = 256, 32
TRAINING_KERNELS = 20_000


def prepare_cpu(training: bool = False) -> None:
    """Use the cores that there are, keep memory, bound kernels. To be called before any work.

    - A container's share of time is not seen by torch, and ``accelerate launch`` leaves each
      process one thread.
    - The C library gives large blocks back to the system as soon as they are free; a training step
      asks for the same ones again, and to get them anew costs more than to fill them.
    - oneDNN makes a kernel for every shape; batches without padding ask for ever new ones, whose
      kernels would fill the memory.

    With a GPU, only threads that are too many are taken away.

    Args:
        training: Keep more kernels.
    """
    threads, on_gpu = process_threads(), torch.accelerator.is_available()
    if not on_gpu or threads < torch.get_num_threads():
        torch.set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")  # numpy's, which is loaded by now
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries that are not
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
    """Whether the processor does (AVX512-BF16 or AMX) and ``ONEDNN_MAX_CPU_ISA`` lets it.

    Intel's do from Cooper Lake and Sapphire Rapids on, AMD's from Zen 4 on.
    """
    return (
        os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() not in WITHOUT_BF16
        and torch.cpu._is_avx512_bf16_supported()
    )


def process_threads() -> int:
    """Threads for this process: OMP_NUM_THREADS, or its part of the cores.

    A launcher sets OMP_NUM_THREADS to 1 for everybody who has not set it.
    """
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    launched = {"LOCAL_WORLD_SIZE", "ACCELERATE_USE_CPU"} & os.environ.keys()
    if chosen.isdecimal() and int(chosen) > 0 and not (launched and chosen == "1"):
        return int(chosen)
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def usable_cores(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Cores by affinity (taskset, cpusets) and by the container's share of time, at least 1.

    Args:
        cgroup: Where limits are told (version 2 or 1 of cgroups).
        membership: Which groups this process is in.
    """
    # Linux says which cores this process may use; macOS and Windows, how many there are.
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(cgroup, membership)])))


def _quotas(cgroup: Path, membership: Path) -> Iterator[float]:
    """Cores' worth of time of the process's groups and of those around them, where limited."""
    # In a container its own group is the root, whatever the process's is called outside.
    lines = ["0::/", "0:cpu:/"]
    with suppress(OSError):
        lines += membership.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = {controllers, "cpu"} if "cpu" in controllers.split(",") else {"", "unified"}
        if controllers and "" in names:
            continue
        inner = Path(path.lstrip("/"))
        for name in sorted(names):
            for group in (inner, *inner.parents):
                with suppress(OSError, ValueError):
                    yield _quota(cgroup / name / group, version=1 if controllers else 2)


def _quota(group: Path, version: int) -> float:
    """Cores' worth of time; infinity: all.

    Raises:
        OSError: Such a group has no limits.
    """
    if version == 2:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    else:
        quota, period = (
            (group / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
            for name in ("quota", "period")
        )
    return float("inf") if quota in ("max", "-1") else int(quota) / int(period)
