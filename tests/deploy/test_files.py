"""The files by which the server is deployed: the Dockerfile, Compose and Kubernetes.

They are valid, and their flags, ports, paths, secrets and times are those of the product.
"""

import fnmatch
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from common.flags import parse
from scripts.index import IndexSettings
from served import engine_of, running, until
from serving.engine.limits import Limits
from serving.http.auth import VARIABLE
from serving.http.server import LAST_ANSWERS
from serving.settings import PORT_OF_BOTH, ServeSettings

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
OBJECTS = ["namespace", "deployment", "service", "disruption", "autoscaling"]
# Spans on their way and those that are left: OpenTelemetry tries each for 10 s.
LAST_SPANS = 20
LONGEST_END = Limits().grace + LAST_ANSWERS + LAST_SPANS


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) of each line of the Dockerfile; comments and stages are left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line]


def words(instruction: str) -> list[str]:
    """The exec form of the only such instruction."""
    (rest,) = (rest for name, rest in instructions() if name == instruction)
    found: list[str] = json.loads(rest[rest.index("[") :])
    return found


def read_yaml(file: str | Path) -> Any:
    """The content of a file with one document."""
    return yaml.safe_load((ROOT / file).read_text("utf-8"))


def manifest(name: str) -> Any:
    """A Kubernetes object, by its file's name."""
    return read_yaml(KUBERNETES / "cpu" / f"{name}.yaml")


def arguments() -> dict[str, list[str]]:
    """The words behind ENTRYPOINT: of the image alone, in Compose, in Kubernetes."""
    (container,) = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    return {
        "Dockerfile": words("CMD"),
        "compose.yaml": read_yaml("compose.yaml")["services"]["server"]["command"],
        "deployment.yaml": container["args"],
    }


def deployment() -> tuple[Any, Any]:
    """The pod's specification, and its only container."""
    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


ENTRYPOINT = words("ENTRYPOINT")


# The image


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
    code = {"scripts/index.py", "scripts/serve.py", "serving", *may_import["serving"]}
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


# Compose and Kubernetes


def test_every_file_can_be_read() -> None:
    files = [path for path in (ROOT / "deploy").rglob("*.*") if path.is_file()]
    assert len(files) > 12
    for file in files:
        if file.suffix in (".yml", ".yaml"):
            assert list(yaml.safe_load_all(file.read_text("utf-8"))), file
        elif file.suffix == ".json":
            assert json.loads(file.read_text("utf-8")), file
        else:
            assert file.suffix in (".md", ".sql"), file


# The oldest that is promised (preStop sleeps), and the newest known.
@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", OBJECTS)
def test_the_manifests_are_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(manifest(name), version, strict=True)


def test_the_kustomizations_name_what_is_there() -> None:
    cpu, cuda = (read_yaml(KUBERNETES / kind / "kustomization.yaml") for kind in ("cpu", "cuda"))
    assert cpu["resources"] == [f"{name}.yaml" for name in OBJECTS]
    assert cuda["resources"] == ["../cpu"]
    (image,), (patch,) = cpu["images"], cuda["patches"]
    assert deployment()[1]["image"] == image["name"]
    # Whatever the first names, pods with a GPU have an image for GPUs.
    changes = {change["path"]: change for change in yaml.safe_load(patch["patch"])}
    container = "/spec/template/spec/containers/0"
    assert changes[f"{container}/image"]["op"] == "replace"
    assert changes[f"{container}/image"]["value"].endswith("-cuda")
    assert changes[f"{container}/resources/limits/nvidia.com~1gpu"]["value"] == 1
    assert "images" not in cuda
    # Kept out of git.
    (secret,) = cpu["secretGenerator"]
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert [f"/deploy/kubernetes/cpu/{name}" for name in secret["files"]] == [
        line for line in ignored if "api_keys" in line
    ]


def test_labels_and_names_lead_to_the_same_pods() -> None:
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifest("deployment")["spec"]["selector"]["matchLabels"],
        manifest("disruption")["spec"]["selector"]["matchLabels"],
        manifest("service")["spec"]["selector"],
        deployment()[0]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)
    target = manifest("autoscaling")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (
        manifest("deployment")["kind"],
        manifest("deployment")["metadata"]["name"],
    )


def test_the_ports_are_those_of_the_server() -> None:
    _, container = deployment()
    (port,) = container["ports"]
    assert port["containerPort"] == PORT_OF_BOTH
    (service,) = manifest("service")["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    annotations = manifest("deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORT_OF_BOTH)
    services = read_yaml("compose.yaml")["services"]
    (published,) = services["server"]["ports"]
    assert published == f"127.0.0.1:{PORT_OF_BOTH}:{PORT_OF_BOTH}"
    (job,) = read_yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"server:{PORT_OF_BOTH}"]}]
    # All is published on this machine alone.
    assert all(
        port.startswith("127.0.0.1:") for one in services.values() for port in one.get("ports", [])
    )


def test_compose_searches_the_database_that_it_has_filled() -> None:
    services = read_yaml("compose.yaml")["services"]
    server, index = services["server"], services["index"]
    served = parse(ServeSettings, arguments()["compose.yaml"], None)
    assert index["entrypoint"] == ["python", "scripts/index.py"]
    filled = parse(IndexSettings, index["command"], None)
    assert (served.store, served.collection) == (filled.store, filled.collection)
    assert served.model == filled.model
    database = services["postgres"]["environment"]
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    assert served.store == f"postgresql://{user}@postgres/{name}"
    for service in (server, index):
        variable = service["environment"]["PGPASSWORD"].strip("${}")
        assert database["POSTGRES_PASSWORD"].startswith(f"${{{variable}:?")
    assert server["depends_on"]["index"]["condition"] == "service_completed_successfully"
    assert index["depends_on"]["postgres"]["condition"] == "service_healthy"
    model, corpus = index["volumes"]
    assert [model] == server["volumes"]
    assert [corpus.split(":")[-2]] == filled.corpus


def test_probes_and_signals_give_the_time_that_the_server_takes() -> None:
    pod, container = deployment()
    paths = [container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness")]
    assert [*paths, container["readinessProbe"]["httpGet"]["path"]] == [
        "/health",
        "/live",
        "/ready",
    ]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + LONGEST_END
    server = read_yaml("compose.yaml")["services"]["server"]
    assert float(server["stop_grace_period"].removesuffix("s")) > LONGEST_END


def test_keys_and_models_are_where_the_flags_say() -> None:
    pod, container = deployment()
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (secret,) = read_yaml(KUBERNETES / "cpu/kustomization.yaml")["secretGenerator"]
    assert f"--api_key_file={mounts[secret['name']]}/{secret['files'][0]}" in container["args"]
    (volume,) = (one for one in pod["volumes"] if "secret" in one)
    assert volume["secret"]["secretName"] == secret["name"] == volume["name"]
    server = read_yaml("compose.yaml")["services"]["server"]
    assert server["environment"][VARIABLE].startswith(f"${{{VARIABLE}:?")
    (model,) = server["volumes"]
    assert model.endswith(":/model:ro")
    # Without a key, only where Prometheus reads.
    assert all("--open_metrics" in words for words in list(arguments().values())[1:])


def test_nothing_may_be_written_but_tmp() -> None:
    pod, container = deployment()
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"limits", "requests"} == container["resources"].keys()
    for name in ("server", "index"):
        service = read_yaml("compose.yaml")["services"][name]
        keys = ("read_only", "tmpfs", "cap_drop")
        assert [service[key] for key in keys] == [True, "/tmp", ["ALL"]]


def test_what_compose_mounts_is_there() -> None:
    services = read_yaml("compose.yaml")["services"]
    mounted = [
        volume.split(":")
        for service in services.values()
        for volume in service["volumes"]
        if volume.startswith("./")
    ]
    assert len(mounted) == 4
    assert all(Path(ROOT / source).is_dir() and mode == "ro" for source, _, mode in mounted)
    (provider,) = read_yaml("deploy/grafana/provisioning/dashboards/tandem.yaml")["providers"]
    assert provider["options"]["path"] in [target for _, target, _ in mounted]
    (source,) = read_yaml("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    host, port = source["url"].removeprefix("http://").split(":")
    assert any(target.endswith(f":{port}") for target in services[host]["ports"])
