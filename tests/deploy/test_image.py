"""The Dockerfile: linted, its sources complete, and what it starts is the product."""

import fnmatch
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.flags import parse
from deployed import ROOT, arguments, instructions, words
from served import engine_of, running, until
from serving.settings import PORT_OF_BOTH, ServeSettings

ENTRYPOINT = words("ENTRYPOINT")


def copied() -> list[str]:
    """What COPY takes from the checkout, with the default of each ARG."""
    defaults = dict(rest.split("=") for name, rest in instructions() if name == "ARG")
    found = []
    for name, rest in instructions():
        if name == "COPY" and "--from=" not in rest:
            rest = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], rest)
            *sources, _ = (word for word in rest.split() if not word.startswith("--"))
            found += sources
    return found


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint is not None
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("place", arguments())
def test_the_server_takes_the_flags(place: str) -> None:
    flags = [*ENTRYPOINT[2:], *arguments()[place]]
    settings = parse(ServeSettings, flags, None)
    assert (settings.host, settings.port, settings.log_json) == ("0.0.0.0", PORT_OF_BOTH, True)
    assert settings.model == "/model"
    assert ENTRYPOINT[:2] == ["python", "scripts/serve.py"]


def test_all_that_the_server_imports_is_copied() -> None:
    may_import = runpy.run_path(str(ROOT / "tests/test_layout.py"))["MAY_IMPORT"]
    code = {"scripts/serve.py", "serving", *may_import["serving"]}
    assert code <= set(copied())
    assert set(copied()) - code == {
        *("LICENSE", "constraints.txt", "deploy/model", "pyproject.toml", "setup.cfg")
    }


def test_what_is_copied_is_sent_to_the_builder_and_secrets_are_not() -> None:
    first, *lines = [
        line
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert first == "*"
    assert sent == {*copied(), "outputs"}
    without = [line for line in lines if not line.startswith("!")]
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        assert any(fnmatch.fnmatch(f"outputs/run/checkpoint-1/{name}", line) for line in without)


def test_extras_and_pins_are_ours() -> None:
    commands = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    text = (ROOT / "setup.cfg").read_text("utf-8")
    assert len(commands) == 2
    for command in commands:
        for install in command.split("&&"):
            assert "--constraint constraints.txt" in install
        (extras,) = re.findall(r"'\.\[(.+?)\]'", command)
        for extra in extras.split(","):
            assert f"\n{extra} =\n" in text


def test_it_does_not_run_as_root() -> None:
    (user,) = (rest for name, rest in instructions() if name == "USER")
    (made,) = (rest for name, rest in instructions() if rest.startswith("useradd"))
    assert user == "10001:10001"
    assert "--uid 10001 " in made
    assert ("EXPOSE", str(PORT_OF_BOTH)) in instructions()


def test_the_health_check_asks_a_real_server(tiny_bert: Path) -> None:
    (check,) = (rest for name, rest in instructions() if name == "HEALTHCHECK")
    assert "'HEAD', '/health'" in check
    _, *command = words("HEALTHCHECK")

    def check_at(url: str) -> int:
        port = url.rpartition(":")[2]
        code = command[-1].replace(str(PORT_OF_BOTH), port)
        return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode

    assert command[0] == "-c"
    with engine_of({"embedder": tiny_bert}) as engine, running(engine, ["embedder"]) as (url, _):
        assert check_at(url) == 0
        engine.drain()
        until(lambda: engine.health()[0] == "draining")
        assert check_at(url) == 1
    assert check_at(url) == 1
