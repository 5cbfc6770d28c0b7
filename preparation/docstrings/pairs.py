"""Extract (query, document) pairs from the docstrings of installed source files.

Files are read with ``ast``: nothing is imported and nothing is executed. The first sentence of a
docstring is the query, what is left of it the document, cleaned of markup and of what is not
about the thing described (examples, references, version notes).
"""

import ast
import gc
import importlib.util
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from preparation.docstrings.text import (
    MIN_DOCSTRING_CHARACTERS,
    clean,
    document_fault,
    query_fault,
    shortened,
    split_summary,
)

STDLIB = "stdlib"  # the name under which the standard library is asked for

# Read by default, in this order: what `pip install` of this project brings along, as far as its
# docstrings are prose. A package that is not installed is left out, and said so.
PACKAGES = (
    STDLIB,
    *("numpy", "scipy", "pandas", "sklearn", "torch", "sympy", "networkx", "mpmath"),
    *("transformers", "datasets", "accelerate", "huggingface_hub", "sentence_transformers"),
    *("evaluate", "pyarrow", "fsspec", "aiohttp", "requests", "jinja2", "packaging", "joblib"),
    *("safetensors", "tqdm", "dateutil", "urllib3", "pydantic", "fastapi", "starlette"),
)

# Folders (or modules) which hold tests, copies of other packages, or machinery without readers.
# transformers.models is 50 MB of the same docstrings over and over.
_SKIPPED_PARTS = re.compile(
    r"_?test(s|ing|_.*)?|conftest|_?vendor(ed)?|externals?|extern|site-packages|__pycache__|"
    r"idlelib|lib2to3|turtledemo|ensurepip|pydoc_data|distutils|benchmarks|array_api_\w+|"
    r"_lib|_inductor|_dynamo|_functorch|_export|_higher_order_ops"
)
_SKIPPED_MODULES = frozenset({"transformers.models", "torch.ao", "torch._refs", "pydantic.v1"})
# Folders that say nothing about the subject: the split looks one level deeper.
_LAYOUT_PARTS = frozenset({"core", "_core", "lib", "src"})


@dataclass(frozen=True)
class DocstringPair:
    """A docstring as a pair: its first sentence is the query, the rest the document.

    Attributes:
        name: Dotted name of what the docstring describes, ``scipy.stats._stats_py.gmean``.
        package: Top-level package, or ``stdlib``.
        topic: The sub-module whose pairs stay together when the data is split, ``scipy.stats``.
        shortened: Whether the document was cut at ``MAX_DOCUMENT_CHARACTERS``.
    """

    name: str
    package: str
    topic: str
    query: str
    document: str
    shortened: bool


def locate(package: str) -> Path | None:
    """Find the folder or file of a top-level package without importing it; None if absent."""
    if package == STDLIB:
        return Path(sysconfig.get_path("stdlib"))
    if not package.isidentifier():
        raise ValueError(f"{package!r} is not the name of a top-level package; give e.g. 'numpy'")
    # Python looks first in the folder of the script that runs, whose evaluate.py is no package.
    own = Path(sys.argv[0]).resolve().parent
    others = [entry for entry in sys.path if Path(entry).resolve() != own]
    spec = PathFinder.find_spec(package, others) or importlib.util.find_spec(package)
    if spec is None or (spec.origin and Path(spec.origin).parent == own):
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def source_files(root: Path, package: str) -> list[tuple[str, Path]]:
    """List (dotted module, file) of the source files under ``root`` worth reading, sorted."""
    if root.is_file():
        return [(package, root)]
    files = []
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).parts):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if any(_SKIPPED_PARTS.fullmatch(part) for part in parts):
            continue
        if package != STDLIB:
            parts = (package, *parts)
        if ".".join(parts[:2]) not in _SKIPPED_MODULES:
            files.append((".".join(parts), path))
    return files


def topic_of(module: str, package: str) -> str:
    """Return the sub-module by which a module is assigned to a part."""
    parts = module.split(".")
    if package == STDLIB:
        return parts[0]
    depth = 3 if len(parts) > 2 and parts[1] in _LAYOUT_PARTS else 2
    return ".".join(parts[:depth])


def docstrings(source: bytes) -> Iterator[tuple[str, str]]:
    """Yield (qualified name, docstring) of a module and its classes and functions, in order.

    The module's own name is empty. Raises SyntaxError or ValueError for what is not Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the source that is read, not about us
        module = ast.parse(source)
    waiting: list[tuple[str, ast.AST]] = [("", module)]
    while waiting:
        name, node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield name, text
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue  # what is defined inside a function has no reader
        for child in reversed(list(ast.iter_child_nodes(node))):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                waiting.append((f"{name}.{child.name}".lstrip("."), child))
            elif isinstance(child, ast.If | ast.Try):
                waiting.append((name, child))


def read_file(package: str, module: str, path: Path, dropped: Counter[str]) -> list[DocstringPair]:
    """Extract the usable docstrings of a file; count why others are dropped in ``dropped``."""
    collects = gc.isenabled()
    # A syntax tree has no cycles, and to search it for some takes longer than to build it.
    gc.disable()
    try:
        found = list(docstrings(path.read_bytes()))
    except (SyntaxError, ValueError, RecursionError, OSError):
        dropped["source file that cannot be read or parsed"] += 1
        return []
    finally:
        if collects:
            gc.enable()
    pairs = []
    for name, text in found:
        # Private to its module; such docstrings are terse.
        if any(part.startswith("_") and not part.endswith("__") for part in name.split(".")):
            dropped["private function or class"] += 1
            continue
        if len(text) < MIN_DOCSTRING_CHARACTERS:  # most of them: spare them the cleaning
            dropped["rest too short"] += 1
            continue
        summary, rest = split_summary(clean(text))
        if fault := query_fault(summary) or document_fault(rest, summary):
            dropped[fault] += 1
            continue
        dotted = f"{module}.{name}".rstrip(".")
        topic, document = topic_of(module, package), shortened(rest)
        cut = document != rest
        pairs.append(DocstringPair(dotted, package, topic, summary, document, cut))
    return pairs
