"""What the served OpenAPI page promises: schemathesis tries it, and finds no mistake of ours."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error

from served import served


@pytest.fixture(scope="module")
def url(tiny_bert: Path, tiny_classifier: Path) -> Iterator[str]:
    folders = {"embedder": tiny_bert, "reranker": tiny_classifier}
    with served(folders) as (found, _):
        yield found


def test_no_request_that_the_schema_allows_is_a_server_error(url: str) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried: Counter[str] = Counter()
    for result in schema.get_all_operations():
        operation: Any = result
        operation = operation.ok()

        @settings(max_examples=12, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy())
        def ask(case: Any) -> None:
            tried[case.operation.label] += 1
            response = case.call(base_url=url)
            case.validate_response(response, checks=[not_a_server_error])

        ask()
    assert min(tried.values()) >= 1
    assert sum(tried.values()) > 100
    assert httpx.get(f"{url}/health").status_code == 200


def test_the_routes_are_those_that_clients_know(url: str) -> None:
    page = httpx.get(f"{url}/openapi.json").json()
    found = {f"{method} {path}" for path, methods in page["paths"].items() for method in methods}
    posts = "embed embed_batch score score_batch rerank v1/rerank v2/rerank v1/embeddings"
    posts += " v1/embed v2/embed similarity predict tokenize decode search compare"
    gets = "live health ready info metrics v1/models v1/models/{model}"
    assert found == {f"post /{name}" for name in ["", *posts.split()]} | {
        f"get /{name}" for name in gets.split()
    }


def test_every_example_of_the_page_can_be_sent(url: str) -> None:
    page = httpx.get(f"{url}/openapi.json").json()
    paths = [path for path, methods in page["paths"].items() if "post" in methods]
    assert len(paths) == 17
    for path in paths:
        body = page["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        response = httpx.post(f"{url}{path}", json=example(body["schema"], page), timeout=60)
        assert response.status_code == 200, (path, response.text)


def example(schema: Any, page: Any) -> Any:
    """The examples of a body's fields; of several forms the first."""
    if "$ref" in schema:
        return example(page["components"]["schemas"][schema["$ref"].rpartition("/")[2]], page)
    if "oneOf" in schema:
        return example(schema["oneOf"][0], page)
    found = {}
    for name, field in schema["properties"].items():
        if "examples" in field:
            found[name] = field["examples"][0]
        elif "$ref" in field and name in schema.get("required", []):
            found[name] = example(field, page)
    return found
