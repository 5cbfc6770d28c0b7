"""The shape of the tree: imports point one way, names are ours alone, tests are flat."""

import ast
import configparser
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT: dict[str, set[str]] = {  # what is not listed is a leaf
    "trainers": {"losses", "collators"},
    "evaluation": {"encoders", "loaders"},
    "mining": {"encoders", "evaluation", "loaders"},
    "serving": {"encoders"},
}
EVERYTHING = {"scripts", "benchmarks"}  # may import all the others; nobody imports them
FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
PACKAGES = [folder for folder in FOLDERS if folder not in EVERYTHING]


def imports(file: Path) -> Iterator[str]:
    """Yield the top-level name of every import in a file, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the package's name"
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("folder", PACKAGES)
def test_imports_point_downwards(folder: str) -> None:
    allowed = MAY_IMPORT.get(folder, set()) | {folder}
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / folder).rglob("*.py")
        for name in imports(file)
        if name in FOLDERS and name not in allowed
    }
    assert not wrong


@pytest.mark.parametrize("folder", PACKAGES)
def test_no_installed_package_has_our_name(folder: str) -> None:
    elsewhere = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
    assert importlib.machinery.PathFinder.find_spec(folder, elsewhere) is None


def test_every_package_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert sorted(setup["options"]["packages"].split()) == PACKAGES


def test_tests_are_flat() -> None:
    nested = [path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "tests"]
    assert not nested
    assert not (ROOT / "tests" / "__init__.py").exists()
