"""How many cores a process may use."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores by affinity (taskset, cpusets) and by the container's share of time, at least 1.

    Args:
        cgroup: Where the container's limits are told (version 2 or 1 of cgroups).
    """
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that the container gets; None: all."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except OSError:
        try:
            quota, period = (
                (cgroup / "cpu" / name).read_text(encoding="ascii").strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)
