"""Dashboard, alerts and autoscaling: every metric and label is one that the server exports."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from served import served
from serving.http.errors import STATUS, Dialect, ServingError

ROOT = Path(__file__).resolve().parents[2]


def read_yaml(file: str) -> Any:
    return yaml.safe_load((ROOT / file).read_text("utf-8"))


DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/tandem.json").read_text("utf-8"))
ALERTS = [
    rule for group in read_yaml("deploy/prometheus/alerts.yml")["groups"] for rule in group["rules"]
]
(ADAPTED,) = read_yaml("deploy/kubernetes/prometheus-adapter.yaml")["rules"]["custom"]
(ASKED,) = read_yaml("deploy/kubernetes/cpu/autoscaling.yaml")["spec"]["metrics"]
METRIC = ASKED["pods"]["metric"]["name"]
# What Prometheus adds to each sample.
OUTSIDE = {"instance", "job", "namespace", "pod"}


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and a PromQL expression."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    yield "prometheus-adapter.yaml: seriesQuery", ADAPTED["seriesQuery"]
    query = ADAPTED["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="a", pod="b"')
    query = query.replace("<<.Series>>", METRIC).replace("<<.GroupBy>>", "pod")
    yield "prometheus-adapter.yaml: metricsQuery", query


def parts(expression: str) -> tuple[list[promql_parser.VectorSelector], set[str]]:
    """Its selectors, and the labels by which it adds up."""
    selectors: list[promql_parser.VectorSelector] = []
    labels: set[str] = set()

    def note(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
            labels.update(node.modifier.labels)
        return True

    promql_parser.walk(promql_parser.parse(expression), note)
    return selectors, labels


@pytest.fixture(scope="module")
def exported(tiny_bert: Path) -> dict[str, dict[str, set[str]]]:
    """Of a server that has answered: values of each label, by the name of the sample."""
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    with served({"embedder": tiny_bert}) as (url, _):
        assert httpx.post(f"{url}/embed", json={"text": "a"}).status_code == 200
        text = httpx.get(f"{url}/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@pytest.mark.parametrize(("place", "expression"), [*expressions()])
def test_metrics_and_labels_are_exported(
    place: str, expression: str, exported: dict[str, dict[str, set[str]]]
) -> None:
    selectors, by = parts(expression)
    assert selectors, place
    for selector in selectors:
        assert selector.name in exported
        labels = exported[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels.keys() | OUTSIDE
            if matcher.name == "reason":
                assert matcher.value in labels["reason"]
    assert by <= {label for labels in exported.values() for label in labels} | OUTSIDE


def test_a_name_that_is_not_exported_is_noticed(exported: dict[str, Any]) -> None:
    (selector,), by = parts("sum by (kind) (rate(tandem_failures_total[1m]))")
    assert (selector.name, by) == ("tandem_failures_total", {"kind"})
    assert selector.name not in exported


def test_the_alert_of_server_errors_counts_them_in_every_dialect() -> None:
    (rule,) = [rule for rule in ALERTS if rule["alert"] == "TandemServerErrors"]
    counted = re.findall(r'status=~"([^"]+)"', rule["expr"])[0]
    for code, status in STATUS.items():
        for dialect in get_args(Dialect) if status != 503 else ():
            told = str(ServingError(code, "").status(dialect))
            assert bool(re.fullmatch(counted, told)) == (status >= 500), (code, dialect)


def test_the_autoscaler_asks_for_what_the_adapter_offers() -> None:
    assert ADAPTED["seriesQuery"].startswith(METRIC + "{")
    assert "name" not in ADAPTED  # the series keeps its own


def test_the_panels_lie_side_by_side_and_ask_the_provisioned_source() -> None:
    (source,) = read_yaml("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in DASHBOARD["panels"]})
    (variable,) = DASHBOARD["templating"]["list"]
    for panel in [*DASHBOARD["panels"], variable]:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
