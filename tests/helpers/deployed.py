"""The files by which the server is deployed, read: the Dockerfile, and everything in YAML."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of each line of the Dockerfile; comments and stages are left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line]


def words(instruction: str) -> list[str]:
    """The exec form of the only such instruction."""
    (rest,) = (rest for name, rest in instructions() if name == instruction)
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found


def read_yaml(file: str | Path) -> Any:
    """The content of a file with one document."""
    return yaml.safe_load((ROOT / file).read_text("utf-8"))


def manifest(name: str) -> Any:
    """A Kubernetes object, by its file's name."""
    return read_yaml(KUBERNETES / "cpu" / f"{name}.yaml")


def arguments() -> dict[str, list[str]]:
    """The words behind ENTRYPOINT: of the image alone, in Compose, in Kubernetes."""
    (container,) = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    return {
        "Dockerfile": words("CMD"),
        "compose.yaml": read_yaml("compose.yaml")["services"]["server"]["command"],
        "deployment.yaml": container["args"],
    }
