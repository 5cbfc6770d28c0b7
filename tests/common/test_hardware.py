"""Cores: by affinity, by the container's share of time, by what the user and a launcher say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.hardware import process_threads, usable_cores, usable_nodes

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = "LOCAL_WORLD_SIZE", "ACCELERATE_USE_CPU", "OMP_NUM_THREADS"


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)


def cores_in(cgroup: Path, membership: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.hardware.CGROUP", cgroup)
        patch.setattr("common.hardware.MEMBERSHIP", membership)
        return usable_cores()


def limit(group: Path, quota: str, period: str, version: int) -> None:
    group.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (group / "cpu.max").write_text(f"{quota} {period}\n")
    else:
        (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (group / "cpu.cfs_period_us").write_text(f"{period}\n")


QUOTAS = [("100000", 1), ("50000", 1), ("350000", 3), ("1600000", 8)]


@pytest.mark.parametrize(
    ("group", "member", "version"),
    [
        ("", "0::/", 2),  # in a container its own group is the root
        ("", "0::/../..", 2),
        ("system.slice/a.service", "0::/system.slice/a.service", 2),
        ("system.slice", "0::/system.slice/a.service", 2),  # the group around it is limited
        ("unified/user", "0::/user", 2),
        ("cpu", "4:cpu,cpuacct:/docker/5f", 1),
        ("cpu/docker/5f", "4:cpu:/docker/5f", 1),
        ("cpu,cpuacct/slurm", "4:cpu,cpuacct:/slurm/job_1", 1),
    ],
)
def test_cores_are_those_of_the_container(
    tmp_path: Path, group: str, member: str, version: int
) -> None:
    membership = tmp_path / "membership"
    membership.write_text(f"12:cpuset:/other\n{member}\n")
    root = tmp_path / "cgroup"
    assert cores_in(root, membership) == 8
    for quota, wanted in QUOTAS:
        limit(root / group, quota, "100000", version)
        assert cores_in(root, membership) == wanted
    limit(root / group, "max" if version == 2 else "-1", "100000", version)
    assert cores_in(root, membership) == 8


def test_the_least_of_nested_limits_holds(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("0::/a/b\n")
    limit(tmp_path / "a", "200000", "100000", 2)
    limit(tmp_path / "a/b", "600000", "100000", 2)
    assert cores_in(tmp_path, membership) == 2
    assert cores_in(tmp_path, tmp_path / "not there") == 8
    (tmp_path / "a/cpu.max").write_text("what is this")
    assert cores_in(tmp_path, membership) == 6


def test_threads_are_the_users_or_the_processs_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.hardware.usable_cores", lambda: 6)
    assert process_threads() == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert process_threads() == 1  # the user's
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert process_threads() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert process_threads() == 3  # the 1 is the launcher's
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert process_threads() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_a_process_takes_what_it_may(tmp_path: Path) -> None:
    """torch, numpy and what is loaded later."""
    code = (
        "import os, pathlib, sys, common.hardware as cpu, torch, threadpoolctl\n"
        "os.sched_getaffinity = lambda _: set(range(8))\n"
        "pathlib.Path(sys.argv[1], 'cpu.max').write_text('300000 100000')\n"
        "cpu.CGROUP, cpu.MEMBERSHIP = pathlib.Path(sys.argv[1]), pathlib.Path('/none')\n"
        "cpu.prepare_cpu()\n"
        "blas = {p['num_threads'] for p in threadpoolctl.threadpool_info()"
        " if p['user_api'] == 'blas'}\n"
        "print(torch.get_num_threads(), os.environ['OMP_NUM_THREADS'], max(blas, default=0) <= 3)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCHER}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["3", "3", "True"], done.stderr


def test_nodes_have_the_cores_of_the_affinity_with_their_threads_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes of four cores with two threads each: 0-3 and 8-11 are of the first."""
    for node, cores in enumerate(("0-3,8-11\n", "4-7,12-15\n")):
        (tmp_path / f"node/node{node}").mkdir(parents=True)
        (tmp_path / f"node/node{node}/cpulist").write_text(cores)
    for core in range(16):
        topology = tmp_path / f"cpu/cpu{core}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{core % 8},{core % 8 + 8}\n")

    monkeypatch.setattr("common.hardware.SYSTEM", tmp_path)

    def nodes(*allowed: int) -> list[list[int]]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed), raising=False)
        return usable_nodes()

    assert nodes(*range(16)) == [[0, 8, 1, 9, 2, 10, 3, 11], [4, 12, 5, 13, 6, 14, 7, 15]]
    assert nodes(9, 1, 2) == [[1, 9, 2]]
    assert nodes(3, 4) == [[3], [4]]
    assert nodes(3, 99) == [[3, 99]]  # the system does not know all of them
    monkeypatch.setattr("common.hardware.SYSTEM", tmp_path / "nothing")
    assert usable_nodes() == [[3, 99]]
