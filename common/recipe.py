"""Read a JSON or YAML recipe: one object of keys and values, each key once."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from common.strict_yaml import DEEPEST, read_yaml
from common.typed_values import shorten

# Lists and objects count too. The longest list in a sensible recipe has some hundred values.
MOST_VALUES = 100_000


def read_recipe(file: Path) -> dict[str, Any]:
    """The keys and values of a ``.json``, ``.yaml`` or ``.yml`` recipe."""
    if not file.is_file():
        raise ValueError(f"--config: there is no file {file}")
    if file.suffix not in {".json", ".yaml", ".yml"}:
        raise ValueError(f"--config: {file} is no recipe; give a .json, .yaml or .yml file")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file}: not UTF-8; save it as UTF-8") from None
    recipe = _read_json(text, file) if file.suffix == ".json" else read_yaml(text, str(file))
    _check_size(recipe, file)
    if not isinstance(recipe, dict):
        raise ValueError(f"{file}: a recipe is an object of keys and values")
    return recipe


def _read_json(text: str, file: Path) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise ValueError(f"{file}: not a recipe: lists or objects nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


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
