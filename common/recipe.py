"""Read a JSON or YAML recipe: one object of keys and values, each key once.

YAML is read without the guesses of YAML 1.1: ``no`` is text, ``5e-5`` a number, ``012`` text.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from common.typed_values import shorten

# Lists and objects count too. The longest list in a sensible recipe has some hundred values.
MOST_VALUES = 100_000
DEEPEST = 50  # lists and objects in each other
_PREFIX = "tag:yaml.org,2002:"
# The scalars of YAML 1.2's core schema, but for nan and infinity, which no setting can be.
_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)",
        "-+.0123456789",
    ),
}


class _Loader(yaml.SafeLoader):
    """Keys are strings and unique; nesting depth is limited."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        """An opening bracket; the scanner's time grows with the square of how many are open."""
        if self.flow_level >= DEEPEST:
            problem = f"brackets nested more than {DEEPEST} deep"
            raise yaml.MarkedYAMLError(None, None, problem, self.get_mark())
        super().fetch_flow_collection_start(token)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The object of a node."""
        names = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a name must be a text", key.start_mark)
            if key.value in names:
                twice = f"{key.value} occurs twice"
                raise yaml.MarkedYAMLError(None, None, twice, node.start_mark)
            names.add(key.value)
        self.flatten_mapping(node)
        return {str(key.value): self.construct_object(item, deep=deep) for key, item in node.value}


_Loader.yaml_implicit_resolvers = {
    first: [(tag, word) for tag, word in known if tag in (f"{_PREFIX}null", f"{_PREFIX}merge")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_pattern, _firsts) in _SCALARS.items():
    _Loader.add_implicit_resolver(_PREFIX + _kind, re.compile(f"^({_pattern})$"), list(_firsts))


def read_recipe(file: Path, flag: str = "config") -> dict[str, Any]:
    """The keys and values of a ``.json``, ``.yaml`` or ``.yml`` recipe; ``flag`` has named it."""
    if not file.is_file():
        raise ValueError(f"--{flag}: there is no file {file}")
    if file.suffix not in {".json", ".yaml", ".yml"}:
        raise ValueError(f"--{flag}: {file} is not a recipe; give a .json, .yaml or .yml file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not UTF-8; save it as UTF-8") from None
    try:
        recipe = _read_json(text, file) if file.suffix == ".json" else _read_yaml(text, file)
    except RecursionError:
        raise ValueError(f"{file}: not a recipe: lists or objects nested too deeply") from None
    _check_size(recipe, file)
    if not isinstance(recipe, dict):
        raise ValueError(f"{file}: a recipe is an object of keys and values")
    return recipe


def _read_json(text: str, file: Path) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _read_yaml(text: str, file: Path) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.context_mark or error.problem_mark
        line = 1 if mark is None else mark.line + 1
        remedy = "; indent with spaces" if r"'\t'" in str(error.problem) else ""
        raise ValueError(f"{file}:{line}: not YAML: {error.problem}{remedy}") from None
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # a tag, !!int, on what is none
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from None


def _check_size(recipe: Any, file: Path) -> None:
    """Refuse what later checks would not get through: YAML's aliases can stand for any number."""
    waiting, values = [(recipe, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if values > MOST_VALUES or depth > DEEPEST:
            raise ValueError(
                f"{file}: not a recipe: more than {MOST_VALUES} values, or nested more than "
                f"{DEEPEST} deep"
            )
        if isinstance(value, dict | list):
            inner = value.values() if isinstance(value, dict) else value
            waiting += [(item, depth + 1) for item in inner]


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{shorten(twice)}: duplicate key in the recipe; keep one")
    return found
