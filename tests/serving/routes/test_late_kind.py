"""A reranker that reads query and document each alone is served by its own ``score_pairs``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Unpack

import httpx
import numpy as np
import pytest
import torch

from encoders import Embedder
from encoders.inference import ScoreSettings
from encoders.kinds import KINDS
from served import served
from tiny import TEXTS

PROMPTS = {"query": "the cat ", "document": "dog "}


class Late(Embedder):
    """Ten times the cosine: a similarity, which no sigmoid may touch."""

    kind = "reranker"

    def score_pairs(
        self, queries: Sequence[str], documents: Sequence[str], **settings: Unpack[ScoreSettings]
    ) -> torch.Tensor:
        return 10 * super().score_pairs(queries, documents, **settings)


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("late") / "model"
    Embedder.from_pretrained(tiny_bert, prompts=PROMPTS).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    row = KINDS["embedder"]._replace(model=Late, retrieves=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "reranker", row)
        with served({"reranker": folder}) as (url, _), httpx.Client(base_url=url) as found:
            yield found


def test_scores_are_those_of_score_pairs(client: httpx.Client, folder: Path) -> None:
    wanted = Late.from_pretrained(folder).score_pairs([TEXTS[0]] * len(TEXTS), TEXTS).numpy()
    assert np.abs(wanted).max() > 1
    body = {"query": TEXTS[0], "docs": TEXTS}
    for raw in (False, True):
        found = client.post("/score_batch", json=body | {"raw_scores": raw}, timeout=60).json()
        np.testing.assert_allclose(found["scores"], wanted, atol=1e-4)
    body = {"query": TEXTS[0], "documents": TEXTS}
    results = client.post("/rerank", json=body).json()["results"]
    assert [result["index"] for result in results] == np.argsort(-wanted, kind="stable").tolist()
    (column,) = client.post("/compare", json=body).json()["columns"]
    assert [entry["index"] for entry in column["ranking"]] == [r["index"] for r in results]
    assert column["similarity"] == "cosine"
    one = client.post("/score", json={"query": TEXTS[0], "doc": TEXTS[1]}).json()["score"]
    assert one == pytest.approx(wanted[1], abs=1e-4)


def test_what_it_cannot_cut_is_refused(client: httpx.Client) -> None:
    long = " ".join(TEXTS) * 20
    body = {"query": "a", "documents": ["b", long]}
    cut = client.post("/v1/rerank", json=body)
    assert cut.headers["X-Truncated"] == "1"
    for key, value in (("truncation_side", "left"), ("max_tokens_per_doc", 3)):
        refused = client.post("/v1/rerank", json=body | {key: value})
        assert refused.status_code == 400
        param = refused.json()["error"]["param"]
        assert param == {"truncation_side": "truncation_direction"}.get(key, key)
    short = {"query": "a", "documents": ["b", "a cat"]}
    given = {"truncation_side": "left", "max_tokens_per_doc": 3}
    assert client.post("/v1/rerank", json=short | given).status_code == 200
