"""Start processes as a user does, and several runs in one launch (``launched.py``)."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from runs import ROOT

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
TWO_PROCESSES = "configs/accelerate/two_cpu_processes.yaml"


def start(command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command at the top of the repository."""
    own = {"PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        own["GLOO_SOCKET_IFNAME"] = "lo"
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **own, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: int = 300) -> subprocess.CompletedProcess[str]:
    """Wait for its end; where it hangs, the test fails with the stacks of its processes."""
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)
        output, errors = process.communicate()
        pytest.fail(f"no end after {seconds} s:\n{output}\n{errors}")
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def write_recipes(
    recipes: dict[str, dict[str, Any]],
    folder: Path,
    variables: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[str]:
    """The command that trains by all recipes, see ``launched.py``.

    Args:
        recipes: By name, which is the name of the output folder.
        folder: Where to; the recipes are written there too.
        variables: NAME=VALUE, before the recipes of these names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = ["tests/helpers/launched.py"]
    for name, recipe in recipes.items():
        content = {
            "output_dir": folder / name,
            "save_strategy": "no",
            "disable_tqdm": True,
        } | recipe
        file = folder / f"{name}.json"
        file.write_text(json.dumps(content, default=str), encoding="utf-8")
        words += [*variables.get(name, ()), str(file)]
    return words


def launch_machines(words: Sequence[str]) -> None:
    """Run in two processes by the launch file for several machines, with an agent for each."""
    command = [*LAUNCH, "--config_file", "configs/accelerate/multi_node.yaml"]
    command += ["--num_processes", "2", "--main_process_ip", "127.0.0.1"]
    command += ["--main_process_port", str(20_000 + os.getpid() % 10_000), "--machine_rank"]
    machines = [start([*command, rank, *words], ACCELERATE_USE_CPU="true") for rank in ("0", "1")]
    for machine in machines:
        done = finish(machine)
        assert done.returncode == 0, done.stdout + done.stderr


def launched_environment(config_file: str, *options: str) -> dict[str, str]:
    """What ``accelerate launch`` gives to the processes that it starts by a launch file."""
    given = ["--config_file", config_file, *options, "--main_process_port", "0"]
    args = launch_command_parser().parse_args([*given, "scripts/train.py"])
    args, _, _ = _validate_launch_command(args)
    assert args.num_processes == 2
    names = ("FSDP_", "ACCELERATE_USE_")
    found = prepare_multi_gpu_env(args)
    return {name: value for name, value in found.items() if name.startswith(names)}


def seen(output: Path) -> list[Any]:
    """What each process noted of a run."""
    notes = sorted(output.parent.glob(f"{output.name}.rank*"))
    return [json.loads(note.read_text(encoding="utf-8")) for note in notes]
