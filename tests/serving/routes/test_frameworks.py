"""The clients of docs/guide/production/clients.md, as it shows them, against a real server."""

import gc
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from encoders import Embedder, Reranker
from served import served
from tiny import TEXTS

PAGE = Path(__file__).resolve().parents[3] / "docs/guide/production/clients.md"
SHOWN = dict(
    re.findall(
        r"^<!-- code: (\S+) -->\n```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S
    )
)
PASSAGES = list(TEXTS)
# These clients do not close their connections.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
QUERY = {"extra_body": {"input_type": "query"}}


@pytest.fixture(scope="module")
def model(tiny_bert: Path) -> Embedder:
    return Embedder.from_pretrained(tiny_bert, prompts={"query": "the cat ", "document": "dog "})


@pytest.fixture(scope="module")
def server(
    model: Embedder, tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of both models, of which the embedder has prompts."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    model.save_pretrained(folder)
    with served({"embedder": folder, "reranker": tiny_classifier}) as (url, _):
        yield url


@pytest.fixture(scope="module")
def scores(tiny_classifier: Path) -> dict[str, float]:
    """Of the first text with each, the best first."""
    pairs = [(TEXTS[0], text) for text in TEXTS]
    found = Reranker.from_pretrained(tiny_classifier).score(pairs).tolist()
    return dict(sorted(zip(TEXTS, found, strict=True), key=lambda pair: -pair[1])[:5])


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No telemetry; what a client leaves open is collected while that is no error."""
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    yield
    gc.collect()


def run(name: str, url: str) -> dict[str, Any]:
    """Run what the page shows; return its names, and as `printed` what it printed.

    Not what stands on the standard output: loggers that other tests set up write there too.
    """
    printed: list[str] = []
    names: dict[str, Any] = {"printed": printed}
    names["print"] = lambda *values: printed.append(" ".join(map(str, values)))
    exec(SHOWN[name].replace("http://127.0.0.1:8000", url), names)
    return names


def check(found: Any, model: Embedder, texts: list[str], side: str | None = None) -> None:
    wanted = model.encode(texts, prompt_name=side).numpy()
    np.testing.assert_allclose(np.array(found), wanted, atol=1e-5)


def check_ranking(found: list[tuple[str, float]], scores: dict[str, float]) -> None:
    assert [text for text, _ in found] == list(scores)
    assert [score for _, score in found] == pytest.approx(list(scores.values()), abs=1e-5)


def test_openai_cohere_and_http(server: str) -> None:
    lines = run("plain", server)["printed"]
    assert lines[0] == "2 32"
    assert sorted(at for at, _ in eval(lines[1])) == [0, 1]
    assert lines[2] == "32 []"
    assert 0 < float(lines[3]) < 1


def test_langchain_embeds(server: str, model: Embedder) -> None:
    embeddings = run("langchain", server)["embeddings"]
    check(embeddings.embed_documents(PASSAGES), model, PASSAGES)
    check([embeddings.embed_query(TEXTS[0])], model, [TEXTS[0]])
    queries = embeddings.model_copy(update={"model_kwargs": QUERY})
    check(queries.embed_documents(PASSAGES), model, PASSAGES, "query")


def test_langchains_token_ids_are_refused_with_the_remedy(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its default. llama-index-core brings the file of the tokenizer, so that none is fetched."""
    import llama_index.core
    from langchain_openai import OpenAIEmbeddings

    cache = Path(llama_index.core.__file__).parent / "_static/tiktoken_cache"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    embeddings = OpenAIEmbeddings(base_url=f"{server}/v1", api_key="-", model="tandem")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.embed_documents(PASSAGES)


def test_llamaindex_embeds_and_reranks(
    server: str, model: Embedder, scores: dict[str, float]
) -> None:
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    names = run("llamaindex", server)
    check(names["embed_model"].get_text_embedding_batch(PASSAGES), model, PASSAGES)
    check([names["embed_model"].get_query_embedding(TEXTS[0])], model, [TEXTS[0]])
    queries = OpenAILikeEmbedding(
        api_base=f"{server}/v1", api_key="-", model_name="tandem", additional_kwargs=QUERY
    )
    check(queries.get_text_embedding_batch(PASSAGES), model, PASSAGES, "query")
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in PASSAGES]
    found = names["reranker"].postprocess_nodes(nodes, query_str=TEXTS[0])
    check_ranking([(node.text, node.score) for node in found], scores)
    with pytest.raises(RuntimeError, match=r"documents\.0: is empty"):
        empty = [NodeWithScore(node=TextNode(text=""))]
        names["reranker"].postprocess_nodes(empty, query_str=TEXTS[0])


def test_haystack_embeds_and_reranks(
    server: str, model: Embedder, scores: dict[str, float]
) -> None:
    from haystack import Document

    names = run("haystack", server)
    documents = [Document(content=text) for text in PASSAGES]
    embedded = names["document_embedder"].run(documents)["documents"]
    check([document.embedding for document in embedded], model, PASSAGES)
    check([names["text_embedder"].run(TEXTS[0])["embedding"]], model, [TEXTS[0]])
    names["text_embedder"].prefix = model.prompts["query"]
    check([names["text_embedder"].run(TEXTS[0])["embedding"]], model, [TEXTS[0]], "query")
    found = names["ranker"].run(query=TEXTS[0], documents=documents)["documents"]
    check_ranking([(document.content, document.score) for document in found], scores)
