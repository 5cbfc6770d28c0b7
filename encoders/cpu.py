"""Settings of a process that computes on a CPU."""

import ctypes
import os
import sys

import torch

# glibc's names for what mallopt sets.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


def prepare_cpu() -> None:
    """Use all cores, keep memory, keep kernels. To be called before any work; without a GPU only.

    - ``accelerate launch`` leaves each process one thread.
    - The C library gives large blocks back to the system as soon as they are free; a training step
      asks for the same ones again, and to get them anew costs more than to fill them.
    - oneDNN makes a kernel for every shape and keeps 1,024, fewer than batches without padding
      ask for.
    """
    if torch.accelerator.is_available():
        return
    # Linux says which cores this process may use; macOS and Windows, how many there are.
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.get_num_threads() < share:
        torch.set_num_threads(share)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            mallopt(MMAP_MAX, 0)
            mallopt(TRIM_THRESHOLD, 2**31 - 1)
