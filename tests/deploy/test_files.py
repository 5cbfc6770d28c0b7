"""Compose and Kubernetes: valid, and the ports, paths, secrets and times of the product."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deployed import KUBERNETES, ROOT, arguments, manifest, read_yaml
from serving.engine.limits import Limits
from serving.http.auth import VARIABLE
from serving.http.server import LAST_ANSWERS
from serving.settings import PORT_OF_BOTH

OBJECTS = ["namespace", "deployment", "service", "disruption", "autoscaling"]
LONGEST_END = Limits().grace + LAST_ANSWERS


def deployment() -> tuple[Any, Any]:
    """The pod's specification, and its only container."""
    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


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
    (image,), (cuda_image,) = cpu["images"], cuda["images"]
    assert deployment()[1]["image"] == image["name"]
    assert cuda_image["name"] == image["newName"]
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
    assert all(port.startswith("127.0.0.1:") for one in services.values() for port in one["ports"])


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
    server = read_yaml("compose.yaml")["services"]["server"]
    assert (server["read_only"], server["tmpfs"], server["cap_drop"]) == (True, "/tmp", ["ALL"])


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
