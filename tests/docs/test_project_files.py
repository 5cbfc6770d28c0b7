"""Pre-commit, the workflow and the pages start what the Makefile has."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
CHECKS = re.findall(
    r"\$\(BIN\)/(\S+(?: check| format)?)", MAKEFILE.split("\ncheck:")[1].split("\n\n")[0]
)


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_pre_commit_runs_the_checks_of_make_check() -> None:
    (local,) = read_yaml(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]]
    assert [entry.removesuffix(" --force-exclude") for entry in entries] == CHECKS
    assert all(hook["language"] == "system" for hook in local["hooks"])


def test_the_workflow_runs_make_check_and_make_coverage() -> None:
    (job,) = read_yaml(".github/workflows/check.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [
        "make check",
        "make coverage",
    ]
    (python,) = (step["with"]["python-version"] for step in job["steps"] if "with" in step)
    assert python == "3.11"


def test_every_target_named_exists() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
    for page in pages:
        for line in re.findall(r"(?:^|`)make ([a-z][^`\n#]*)", page.read_text("utf-8"), re.M):
            words = [word for word in shlex.split(line) if "=" not in word]
            assert words and set(words) <= TARGETS, (page, line)
