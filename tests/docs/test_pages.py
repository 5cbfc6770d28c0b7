"""The pages: complete, alike in both languages, and every example in them works."""

import configparser
import json
import re
import runpy
import shlex
import sys
import types
from inspect import signature
from itertools import zip_longest
from pathlib import Path

import pytest

import trainers.objectives
from common.flags import FAMILIAR, merge, read_flags
from docs.generate import SCRIPTS
from encoders.kinds import KINDS
from loaders import ReadOptions, detect_shape, load_rows
from serving.settings import PORT_OF_BOTH
from trainers import OBJECTIVES, parse_run
from trainers.config.arguments import OWN_FIELDS, defaults

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = {
    file.relative_to(ROOT).as_posix(): file.read_text("utf-8")
    for file in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
}
# English -> Chinese; the keys of a recipe are generated in one language and written in the other.
PAIRS = {"README.md": "README.zh-CN.md"} | {
    page.replace("docs/zh/", "docs/"): page
    for page in TEXTS
    if page.startswith("docs/zh/") and page != "docs/zh/recipe_keys.md"
}
# A fenced block, and the marker that may stand on the line before it.
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# <!-- rows: file name, its shape, the number of rows, the reading options -->
ROWS = re.compile(r"rows: (\S+) (\w+) (\d+) ?(.*)")
REQUIRED = {"objective", "model_name_or_path", "train_file", "output_dir"}
# What the example of docs/extending.md has its reader write.
OF_THE_EXAMPLE = {
    "losses/focal.py",
    "tests/losses/test_focal.py",
    "configs/reranker_focal.json",
}

each_page = pytest.mark.parametrize("page", TEXTS)
each_pair = pytest.mark.parametrize(("english", "chinese"), PAIRS.items())
both = pytest.mark.parametrize("folder", ["docs", "docs/zh"])


def blocks(page: str, language: str) -> list[tuple[str, str]]:
    """(marker or "", content) of the fenced blocks of one language."""
    found = BLOCK.findall(TEXTS[page])
    return [(marker, content) for marker, kind, content in found if kind == language]


def commands(page: str) -> list[str]:
    """The shell commands shown, one each, without comments."""
    script = "\n".join(content for _, content in blocks(page, "bash")).replace("\\\n", " ")
    lines = [shlex.join(shlex.split(line, comments=True)) for line in script.splitlines()]
    return [line for line in lines if line]


def code(page: str, file: str) -> str:
    """The block that shows ``file``."""
    (content,) = (text for marker, text in blocks(page, "python") if marker == f"code: {file}")
    return content


def headings(page: str) -> list[str]:
    """With their number signs."""
    return re.findall(r"^#+ .+", BLOCK.sub("", TEXTS[page]), re.MULTILINE)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    words = re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower())
    return words.replace(" ", "-")


def keys(page: str) -> dict[str, str]:
    """Key -> default of a page's tables."""
    return dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", TEXTS[page], re.MULTILINE))


# Complete


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_the_readme_is_short_and_leads_to_every_page(page: str) -> None:
    text = TEXTS[page]
    assert len(text.splitlines()) <= 200
    chinese = page != "README.md"
    linked = {target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text)}
    pages = {name for name in TEXTS if name.startswith("docs/zh/") == chinese and "/" in name}
    assert pages <= linked


def test_every_own_key_is_explained_with_its_default_in_chinese() -> None:
    rows = keys("docs/zh/recipe_keys.md")
    for field in OWN_FIELDS:
        if field.name in REQUIRED:
            assert rows[field.name].isalpha(), field.name  # "required", in words
        else:
            assert rows[field.name] == f"`{json.dumps(defaults()[field.name])}`", field.name
    assert rows.keys() == {field.name for field in OWN_FIELDS}


@both
def test_the_most_used_keys_are_explained_with_their_defaults(folder: str) -> None:
    rows = keys(f"{folder}/guide/recipes.md")
    assert len(rows) > 20
    for name, default in rows.items():
        required = name in REQUIRED
        assert default.isalpha() if required else default == f"`{json.dumps(defaults()[name])}`"


@both
def test_every_objective_recipe_launch_file_and_known_name_is_there(folder: str) -> None:
    readme = "README.md" if folder == "docs" else "README.zh-CN.md"
    for page in (readme, f"{folder}/guide/objectives.md"):
        shown = re.findall(r"^\| `(\w+)` \| (\w+) \|", TEXTS[page], re.MULTILINE)
        assert dict(shown) == {name: row.model for name, row in OBJECTIVES.items()}, page
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.json")}
    listed = re.findall(r"^\| `(configs/\S+)` \|", TEXTS[f"{folder}/guide/recipes.md"], re.M)
    assert set(listed) == recipes
    for file in (ROOT / "configs/accelerate").glob("*.yaml"):
        launch = f"--config_file configs/accelerate/{file.name} "
        assert launch in TEXTS[f"{folder}/guide/distributed.md"]
    for name in FAMILIAR:
        assert f"`--{name}" in TEXTS[f"{folder}/migrating.md"]


@both
def test_the_table_of_objectives_has_the_arguments_of_each_loss(folder: str) -> None:
    text = TEXTS[f"{folder}/guide/objectives.md"]
    for name, row in OBJECTIVES.items():
        cells = re.findall(rf"^\| `{name}` \|.* \| (.+) \|$", text, re.MULTILINE)
        assert len(cells) == 1, f"{folder}/guide/objectives.md has no row for {name}"
        parameters = signature(row.loss).parameters.values()
        assert dict(re.findall(r"`(\w+)` \((.+?)\)", cells[0])) == {
            parameter.name: json.dumps(parameter.default)
            for parameter in parameters
            if parameter.default is not parameter.empty
        }, name


@both
def test_every_script_is_shown(folder: str) -> None:
    shown = "\n".join(
        command
        for page in TEXTS
        if page.startswith("docs/zh/") == (folder == "docs/zh")
        for command in commands(page)
    )
    scripts = list((ROOT / "scripts").glob("[a-z]*.py"))
    for file in (path for path in scripts if "__main__" in path.read_text("utf-8")):
        assert f"python scripts/{file.name} " in shown or f"launch scripts/{file.name} " in shown


@both
def test_every_extra_is_named(folder: str) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = TEXTS[f"{folder}/guide/recipes.md"]
    for name in set(setup["options.extras_require"]) - {"quickstart"}:
        assert f"`{name}`" in text, name


@each_page
def test_every_file_link_and_heading_named_exists(page: str) -> None:
    text = TEXTS[page]
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, place = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), target
        if place:
            linked = file.resolve().relative_to(ROOT).as_posix()
            assert place in map(anchor, headings(linked)), target
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir())
    ours = set(folders.split("|")) - {"data", "outputs"}
    for name in re.findall(r"(?<![\w./-])((?:[\w.-]+/)+[\w-]+\.[a-z]+)\b", text):
        if name.split("/")[0] in ours:
            assert name in OF_THE_EXAMPLE or (ROOT / name).is_file(), name


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_every_folder_is_in_the_tree(page: str) -> None:
    tree = re.findall(r"^(\w+)/ {2,}", TEXTS[page], re.MULTILINE)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(tree) == packages | {"benchmarks", "configs", "deploy", "docs", "tests"}


def test_the_design_says_who_may_import_whom() -> None:
    kept = runpy.run_path(str(ROOT / "tests/test_layout.py"))["MAY_IMPORT"]
    _, _, table = TEXTS["docs/design.md"].partition("| package | may import |")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", table.split("\n\n")[0], re.MULTILINE)
    assert {package: set(re.findall(r"`(\w+)`", others)) for package, others in rows} == kept


# Alike


@each_pair
def test_both_languages_have_the_same_headings(english: str, chinese: str) -> None:
    levels = [[heading.split()[0] for heading in headings(page)] for page in (english, chinese)]
    assert levels[0] == levels[1]


@each_pair
def test_both_languages_have_the_same_commands_examples_and_tables(
    english: str, chinese: str
) -> None:
    assert commands(english) == commands(chinese)
    for language in ("json", "csv", "tsv", "python", ""):
        assert blocks(english, language) == blocks(chinese, language)
    first_cells = [
        re.findall(r"^\| `([^`]*)`", TEXTS[page], re.MULTILINE) for page in (english, chinese)
    ]
    for one, other in zip_longest(*first_cells):
        assert one == other


@each_pair
def test_both_languages_link_to_each_other(english: str, chinese: str) -> None:
    for page, other in ((english, chinese), (chinese, english)):
        link = re.findall(r"\]\(([^)]+)\)", TEXTS[page])[0]
        assert ((ROOT / page).parent / link).resolve() == ROOT / other


# Every example works


def test_the_rows_shown_are_read(tmp_path: Path) -> None:
    shown = [
        (*match.groups(), content)
        for page in TEXTS
        for language in ("json", "csv", "tsv")
        for marker, content in blocks(page, language)
        if (match := ROWS.fullmatch(marker))
    ]
    marked = re.findall(r"^<!-- rows: ", "\n".join(TEXTS.values()), re.MULTILINE)
    assert len(shown) == len(marked) > 20
    for name, shape, count, given, content in shown:
        file = tmp_path / name
        file.write_text(content, encoding="utf-8")
        settings = json.loads(given or "{}")
        if "label_range" in settings:
            settings["label_range"] = tuple(settings["label_range"])
        options = ReadOptions(**settings)
        assert detect_shape(str(file), options) == shape, name
        assert len(load_rows(str(file), detect_shape(str(file), options), options)) == int(count)


def test_the_recipes_shown_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_the_example_objective("docs/extending.md", monkeypatch)
    recipes = [text for page in TEXTS for marker, text in blocks(page, "json") if not marker]
    assert len(recipes) >= 8
    for recipe in recipes:
        file = tmp_path / "recipe.json"
        file.write_text(recipe, encoding="utf-8")
        parse_run(["--config", str(file)])


@each_page
def test_the_commands_shown_are_valid(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "extending" in page:
        add_the_example_objective(page, monkeypatch)
    monkeypatch.chdir(ROOT)
    for words in map(shlex.split, commands(page)):
        for at, word in enumerate(words):
            if word == "scripts/train.py":
                parse_run(words[at + 1 :])
            elif word.startswith("scripts/"):
                check_flags(words[at].removeprefix("scripts/"), words[at + 1 :])


def check_flags(script: str, words: list[str]) -> None:
    """Read the flags of a command as the script's dataclass, without its ``--config``."""
    if words and f"{script} {words[0]}" in SCRIPTS:
        script, words = f"{script} {words[0]}", words[1:]
    flags = read_flags(words)
    config = flags.pop("config", [])
    assert all((ROOT / name).is_file() for name in config)
    merge(SCRIPTS[script], {}, flags)


@pytest.mark.parametrize("file", [*TEXTS, "Makefile", "Dockerfile", "scripts/serve.py"])
def test_the_ports_shown_are_those_of_the_server(file: str) -> None:
    known = {PORT_OF_BOTH, *(row.port for row in KINDS.values())}
    before = r"127\.0\.0\.1:|localhost:|\bport |EXPOSE |端口 |served on |用 (?=80)"
    shown = re.findall(rf"(?:{before})(\d+)", (ROOT / file).read_text("utf-8"))
    assert {int(port) for port in shown} <= known


@pytest.mark.parametrize("page", ["README.md", "docs/guide/models.md"])
def test_the_python_shown_runs(page: str, tiny_bert: Path, tiny_classifier: Path) -> None:
    shown = blocks(page, "python")
    assert shown
    for _, content in shown:
        for name in ("outputs/embedding_contrastive", "outputs/multi_vector"):
            content = content.replace(name, str(tiny_bert))
        exec(content.replace("outputs/reranker", str(tiny_classifier)), {})


@pytest.mark.parametrize("page", ["docs/extending.md", "docs/zh/extending.md"])
def test_the_example_objective_works(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add_the_example_objective(page, monkeypatch)
    names: dict[str, object] = {}
    exec(code(page, "tests/losses/test_focal.py"), names)
    test = names["test_focal_is_the_naive_loop"]
    assert callable(test)
    test()


def add_the_example_objective(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what the page says for the duration of a test: a loss file, a row of the table."""
    module = types.ModuleType("losses.focal")
    exec(code(page, "losses/focal.py"), vars(module))
    monkeypatch.setitem(sys.modules, "losses.focal", module)
    row = code(page, "trainers/objectives.py")
    added = eval(f"{{{row}}}", vars(trainers.objectives) | {"FocalLoss": module.FocalLoss})
    for name, objective in added.items():
        monkeypatch.setitem(OBJECTIVES, name, objective)
