"""The shape of the tree: imports point one way, no circles, small folders, names of our own."""

import ast
import configparser
import graphlib
import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "losses": {"common"},
    "loaders": {"common"},
    "encoders": {"common"},
    "collators": {"common"},
    "preparation": {"common", "encoders", "loaders"},
    "evaluation": {"common", "encoders", "loaders"},
    "mining": {"common", "encoders", "evaluation", "loaders", "preparation"},
    "stores": {"common", "encoders", "evaluation", "loaders"},
    "serving": {"common", "encoders", "evaluation", "loaders", "stores"},
    "trainers": {
        "common",
        "collators",
        "encoders",
        "evaluation",
        "loaders",
        "losses",
        "mining",
    },
}
EVERYTHING = {"scripts", "benchmarks"}  # may import all the others; nobody imports them
PACKAGES = sorted(MAY_IMPORT)
MOST_ENTRIES = 12


def imports(file: Path) -> Iterator[str]:
    """Yield every module that a file imports, also inside functions and ``TYPE_CHECKING``."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the package's name"
            yield str(node.module)
            # `from package import module` imports the module too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_every_package_is_listed() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - EVERYTHING
    assert found == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_downwards(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = {
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / package).rglob("*.py")
        for name in imports(file)
        if name.split(".")[0] in {*PACKAGES, *EVERYTHING} and name.split(".")[0] not in allowed
    }
    assert not wrong


def test_no_circles() -> None:
    """Among modules, ``TYPE_CHECKING`` included; a package's ``__init__`` only re-exports."""
    files = {
        module_of(file): file for package in PACKAGES for file in (ROOT / package).rglob("*.py")
    }
    graph = {
        module: {
            name
            for name in imports(file)
            if name in files and files[name].name != "__init__.py" and name != module
        }
        for module, file in files.items()
        if file.name != "__init__.py"
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_folders_are_small() -> None:
    """No folder has more than a dozen entries on one level, tests and benchmarks included."""
    folders = [
        ROOT / name for name in (*PACKAGES, *EVERYTHING, "configs", "deploy", "docs", "tests")
    ]
    for top in folders:
        for folder in [top, *(path for path in top.rglob("*") if path.is_dir())]:
            if folder == ROOT / "tests":
                continue  # mirrors the tree
            if "__pycache__" in folder.parts or "page" in folder.parts:
                continue
            entries = [path.name for path in folder.iterdir()]
            kept = {
                name for name in entries if name not in {"__init__.py", "py.typed", "__pycache__"}
            }
            assert len(kept) <= MOST_ENTRIES, (folder, sorted(kept))


def test_files_are_short() -> None:
    """300 lines, tests 500."""
    for top in (*PACKAGES, *EVERYTHING, "tests"):
        for file in (ROOT / top).rglob("*.py"):
            lines = len(file.read_text(encoding="utf-8").splitlines())
            assert lines <= (500 if top == "tests" else 300), (file, lines)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_installed_package_has_our_name(package: str) -> None:
    elsewhere = [path for path in sys.path if Path(path or ".").resolve() != ROOT]
    elsewhere = [path for path in elsewhere if ROOT / "tests" not in Path(path).resolve().parents]
    assert importlib.machinery.PathFinder.find_spec(package, elsewhere) is None


def test_every_package_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    found = setup["options.packages.find"]["include"].split()
    assert sorted(found) == sorted([*PACKAGES, *(f"{package}.*" for package in PACKAGES)])
