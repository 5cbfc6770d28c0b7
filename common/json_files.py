"""Read and write the JSON files of a model folder, with errors that name file and key."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(file: Path) -> Any:
    """A file's content; an empty object where there is no file.

    Raises:
        ValueError: It is not valid JSON.
    """
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from None


def write_json(file: Path, content: Any) -> None:
    """Write a file, indented, as UTF-8; it appears when complete."""
    text = json.dumps(content, ensure_ascii=False, indent=2)
    part = file.with_name(f"{file.name}.part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(file)


def read_entries(file: Path) -> list[dict[str, Any]]:
    """The entries of a ``modules.json``.

    Raises:
        ValueError: It is not a list of objects with ``type`` and ``path``.
    """
    entries = read_json(file)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{file}: must be a list of modules")
    for at, entry in enumerate(entries):
        given = entry if isinstance(entry, dict) else {}
        for key in ("type", "path"):
            if not isinstance(given.get(key), str):
                raise ValueError(f"{file}: module {at} must be an object with a text as its {key}")
    return entries


def read_settings(file: Path) -> dict[str, Any]:
    """The content of a ``config_sentence_transformers.json``; empty where there is no file.

    Raises:
        ValueError: A key has a value of the wrong type.
    """
    settings = read_json(file)
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: must be an object")
    prompts = settings.get("prompts")
    if prompts is not None and not (
        isinstance(prompts, Mapping)
        and all(text is None or isinstance(text, str) for text in prompts.values())
    ):
        raise ValueError(f"{file}: prompts must be an object of texts, got {prompts!r}")
    for key in ("model_type", "default_prompt_name", "similarity_fn_name", "activation_fn"):
        value = settings.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{file}: {key} must be a text, got {value!r}")
    name = settings.get("default_prompt_name")
    if name and name not in (prompts or {}):
        raise ValueError(f"{file}: default_prompt_name {name!r} is not one of its prompts")
    cut = settings.get("truncate_dim")
    if cut is not None and (not isinstance(cut, int) or isinstance(cut, bool) or cut < 1):
        raise ValueError(f"{file}: truncate_dim must be a positive whole number, got {cut!r}")
    return settings
