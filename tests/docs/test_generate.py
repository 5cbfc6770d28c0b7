"""The generated reference is what the code says."""

from pathlib import Path

import pytest

from docs.generate import FOLDER, pages
from trainers import OBJECTIVES
from trainers.config.arguments import OWN_FIELDS

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_the_files_are_those_of_the_code(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == PAGES[name], "run: python docs/generate.py"


def test_nothing_else_is_in_the_folder() -> None:
    assert {file.name for file in Path(FOLDER).iterdir()} == PAGES.keys()


def test_every_own_key_changed_default_and_objective_is_there() -> None:
    for name in [*(field.name for field in OWN_FIELDS), "warmup_steps", "logging_steps"]:
        assert f"\n| `{name}` | " in PAGES["recipe_keys.md"]
    for name in OBJECTIVES:
        assert f"\n## `{name}`\n" in PAGES["objectives.md"]
