"""Settings read from flags and a recipe: types, bounds, required keys, what ``--help`` tells."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from common.flags import Settings, exit_code, keys, option, parse, required

USAGE = """Do a thing.

    python thing.py --file a --size 2

More about it.
"""


@dataclass(kw_only=True)
class Lower(Settings):
    """What is shared."""

    size: int = option(1, "How large.", least=1)
    bounds: tuple[float, float] | None = option(None, "Lowest and highest.")


@dataclass(kw_only=True)
class Upper(Lower):
    """What is its own."""

    file: Path = required("Read.")
    mode: Literal["fast", "slow"] = option("fast", "How.")
    names: list[str] = option([], "Whose.")
    sizes: list[int] | None = option(None, "Several.", least=0)
    count: int | Literal["auto"] = option("auto", "How many.")
    quiet: bool = option(False, "Say nothing.")


def test_values_have_the_types_of_their_fields() -> None:
    words = "--file a/b --bounds 0 5 --mode slow --names x y --sizes 3 --quiet --size=2"
    found = parse(Upper, words.split(), None)
    assert found == Upper(
        file=Path("a/b"),
        bounds=(0.0, 5.0),
        mode="slow",
        names=["x", "y"],
        sizes=[3],
        quiet=True,
        size=2,
    )
    plain = parse(Upper, ["--file", "a", "--quiet", "false", "--bounds", "null"], None)
    assert plain == Upper(file=Path("a"))
    assert parse(Upper, ["--file=~/a"], None).file == Path.home() / "a"
    for word, count in (("3", 3), ("auto", "auto")):
        assert parse(Upper, ["--file", "a", "--count", word], None).count == count
    assert plain.names == [] and plain.names is not Upper(file=Path("a")).names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "file: is missing; give --file, or add it to the recipe"),
        ("--file a --count many", 'count: "many" is not one of auto, an integer'),
        ("--file a --count 1.5", 'count: "1.5" is not one of auto, an integer'),
        ("--file a --size 0", "size: must be at least 1, got 0"),
        ("--file a --sizes 4 -2", "sizes: must be at least 0, got -2"),
        ("--file a --size x", '--size: "x" is not an integer'),
        ("--file a --size 1 2", "--size: takes one value, got 2 (1 2)"),
        ("--file a --bounds 1", "bounds: [1.0] is not a list of 2 or null"),
        ("--file a --bounds 1 2 3", "bounds: [1.0, 2.0, 3.0] is not a list of 2 or null"),
        ("--file a --mode medium", 'mode: "medium" is not one of fast, slow'),
        ("--file a --sise 2", "sise: unknown key; did you mean size?"),
        ("--file a --config b c", "--config: takes one recipe (.json or .yaml)"),
    ],
)
def test_mistakes(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse(Upper, words.split(), None)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ('{"file": 3}', "file: 3 is not a path"),
        ('{"file": "a", "size": "2"}', 'size: "2" is not an integer'),
        ('{"file": "a", "bounds": [0, "5"]}', 'bounds: [0, "5"] is not a list of 2 or null'),
        ('{"file": "a", "names": "x"}', 'names: "x" is not a list'),
    ],
)
def test_a_recipe_has_values_of_json_types(tmp_path: Path, recipe: str, message: str) -> None:
    (tmp_path / "recipe.json").write_text(recipe)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        parse(Upper, ["--config", str(tmp_path / "recipe.json")], None)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Its own keys first, then those that it shares; the examples at the end."""
    with pytest.raises(SystemExit) as stop:
        parse(Upper, ["--help"], USAGE)
    assert stop.value.code == 0
    said = capsys.readouterr().out
    places = [
        said.index(text)
        for text in (
            "Do a thing.\n\nMore about it.\n",
            "What is its own:\n",
            "  --file <path> (required)\n        Read.\n",
            '  --mode <fast | slow> (default "fast")\n',
            "  --names <list of str> (default [])\n",
            "  --quiet <bool> (default false)\n",
            "What is shared:\n",
            "  --size <int> (default 1)\n",
            "  --bounds <list of float or null> (default null)\n",
            "examples:\n  python thing.py --file a --size 2\n",
        )
    ]
    assert places == sorted(places)
    assert [key.name for key in keys(Upper)][:1] == ["file"]


def test_what_the_user_can_mend_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise FileNotFoundError(2, "No such file", "a")

    assert exit_code(broken) == 2
    assert capsys.readouterr().err == "error: [Errno 2] No such file: 'a'\n"
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: 1) == 1
