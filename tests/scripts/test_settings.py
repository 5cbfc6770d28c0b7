"""All commands read their settings alike: keys, types, suggestions, ``--config``, ``--help``."""

import dataclasses
import importlib
import json
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from common.flags import keys, parse
from scripts import SETTINGS
from scripts.prepare_data import COMMANDS

ROOT = Path(__file__).resolve().parents[2]

each_command = pytest.mark.parametrize("command", SETTINGS)


def settings_of(command: str) -> Any:
    return pkgutil.resolve_name(SETTINGS[command])


def run(command: str, *flags: str) -> int:
    """The exit code of a command."""
    script, _, rest = command.partition(".py")
    try:
        code: int = importlib.import_module(f"scripts.{script}").main([*rest.split(), *flags])
    except SystemExit as stop:  # train.py, which processes of a launch end together
        return int(str(stop.code))
    return code


def test_every_command_is_listed() -> None:
    files = {path.name for path in (ROOT / "scripts").glob("[a-z]*.py")} - {"prepare_data.py"}
    assert set(SETTINGS) == files | {f"prepare_data.py {name}" for name in COMMANDS}
    for name, (_, settings) in COMMANDS.items():
        assert settings is settings_of(f"prepare_data.py {name}")


@each_command
def test_every_key_has_a_meaning_of_one_line(command: str) -> None:
    found = list(keys(settings_of(command)))
    assert {key.name for key in found} == {
        known.name for known in dataclasses.fields(settings_of(command)) if known.init
    }
    for key in found:
        assert key.help and key.type and key.default and key.group, key.name
        assert "typing." not in key.type and "<" not in key.type, key.name


@each_command
def test_help_names_every_key_and_shows_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--help") == 0
    said = capsys.readouterr().out
    for key in keys(settings_of(command)):
        default = key.default if key.default == "required" else f"default {key.default}"
        assert f"  --{key.name} <{key.type}> ({default})\n" in said
    examples = said[said.index("\nexamples:\n") :]
    assert f"scripts/{command} --" in examples


@each_command
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--zzz", "red"], "zzz: unknown key; --help lists all keys"),
        (["--config", "nowhere.json"], "--config: there is no file nowhere.json"),
        (["word"], "word: a flag begins with --"),
    ],
)
def test_a_mistake_is_one_line(
    command: str, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, *flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


@each_command
def test_a_near_miss_is_suggested(command: str) -> None:
    for key in keys(settings_of(command)):
        with pytest.raises(ValueError, match=f"^{key.name}x: unknown key; did you mean {key.name}"):
            parse(settings_of(command), [f"--{key.name}x", "1"], None)


def test_a_recipe_and_flags_over_it(tmp_path: Path) -> None:
    """The same words in a file and as flags mean the same, in a command without training."""
    kind = settings_of("mine_negatives.py")
    recipe = {
        "input": ["a.jsonl"], "output": "b.jsonl", "bm25": True, "rank_range": [3, 30],
        "label_map": {"good": 1}, "random_share": 0.5, "seed": 1,
    }  # fmt: skip
    (tmp_path / "mining.json").write_text(json.dumps(recipe))
    (tmp_path / "mining.yaml").write_text(
        "\n".join(f"{k}: {json.dumps(v)}" for k, v in recipe.items())
    )
    flags = ["--input", "a.jsonl", "--output", "b.jsonl", "--bm25", "--rank_range", "3", "30"]
    flags += ["--label_map", '{"good": 1}', "--random_share", "0.5", "--seed", "7"]
    given = parse(kind, flags, None)
    assert given.rank_range == (3, 30) and given.output == Path("b.jsonl")
    for name in ("mining.json", "mining.yaml"):
        config = ["--config", str(tmp_path / name)]
        assert parse(kind, [*config, "--seed", "7"], None) == given
        assert parse(kind, config, None).seed == 1
