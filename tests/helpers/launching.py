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

from runs import ROOT

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch"]
TWO_PROCESSES = ["--config_file", "configs/accelerate/two_cpu_processes.yaml"]


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


def write_recipes(recipes: dict[str, dict[str, Any]], folder: Path) -> list[str]:
    """Write each as a file, its output folder in ``folder`` under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, recipe in recipes.items():
        content = {
            "output_dir": folder / name,
            "save_strategy": "no",
            "disable_tqdm": True,
        } | recipe
        files.append(str(folder / f"{name}.json"))
        Path(files[-1]).write_text(json.dumps(content, default=str), encoding="utf-8")
    return files


def train_all(
    recipes: dict[str, dict[str, Any]],
    folder: Path,
    options: Sequence[str] | int = TWO_PROCESSES,
    variables: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> str:
    """Train by all recipes in one launch; returns what it printed.

    Args:
        recipes: By name, which is the name of the output folder.
        folder: Where to.
        options: Of the launch; or so many processes, without accelerate's launcher.
        variables: NAME=VALUE of the environment, set before the recipes of these names.
    """
    words: list[str] = []
    for name, file in zip(recipes, write_recipes(recipes, folder), strict=True):
        words += [*variables.get(name, ()), file]
    command = [*LAUNCH, *([] if isinstance(options, int) else options)]
    if isinstance(options, int):
        command, words = [sys.executable], [f"PROCESSES={options}", *words]
    done = finish(start([*command, "tests/helpers/launched.py", *words]))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def seen(output: Path) -> list[Any]:
    """What each process noted of a run."""
    notes = sorted(output.parent.glob(f"{output.name}.rank*"))
    return [json.loads(note.read_text(encoding="utf-8")) for note in notes]
