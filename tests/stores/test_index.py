"""scripts/index.py: the collection agrees with the corpus, whatever happened before."""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.run_files import BEST_FILE
from encoders import Embedder
from forked import Copy, together
from scripts.index import main
from stores import Document, Store, Table, open_store
from stores.collection import find_live, open_live
from stores.fingerprint import fingerprint
from stores.store import Layout
from tiny import TEXTS, save_backbone, save_classifier
from zoo import embedder

DOCUMENTS: list[dict[str, Any]] = [
    {"_id": f"d{at}", "title": "" if at % 2 else "Title", "text": text, "year": 2000 + at}
    for at, text in enumerate(TEXTS)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return embedder(folder / "model", save_backbone(folder / "base"))


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return embedder(folder / "other", save_backbone(folder / "base", seed=1))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", DOCUMENTS)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def index(url: str, model: Path, *corpus: Path, **flags: Any) -> int:
    given = [f"--{name}={value}" for name, value in flags.items()]
    names = ["--corpus", *map(str, corpus)]
    return main(["--store", url, "--model", str(model), *names, *given])


def contents(url: str, collection: str = "docs") -> dict[str, tuple[Document, list[float]]]:
    """All that is in a collection, by id."""
    store = open_store(url)
    table = live(store, collection)
    ids = [identity for block in table.ids(3) for identity, *_ in block]
    documents, vectors = table.documents(ids), table.vectors(ids)
    assert len(ids) == len(set(ids)) == len(documents) == table.count()
    store.close()
    return {each: (documents[each], vectors[each].tolist()) for each in sorted(documents)}


def unit(model: Path, texts: Sequence[str]) -> Any:
    """The model's own vectors, compared by their cosine."""
    vectors = Embedder.from_pretrained(model).encode(texts, prompt_name="document")
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def live(store: Store, collection: str = "docs") -> Table:
    about = find_live(store, collection)
    return store.open(about["table"], Layout(**about["layout"]))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[0]


def test_embeds_only_what_is_new(
    url: str, model: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert index(url, model, corpus, block_size=4) == 0
    assert said(capsys) == "docs: 10 embedded, 0 updated, 0 unchanged, 0 deleted"
    first = contents(url)
    texts = [each.text for each, _ in first.values()]
    np.testing.assert_allclose(
        [vector for _, vector in first.values()], unit(model, texts), atol=1e-6
    )
    assert first["d0"][0].text == f"Title {TEXTS[0]}"
    assert first["d0"][0].metadata == {"title": "Title", "year": 2000}

    assert index(url, model, corpus) == 0
    assert said(capsys) == "docs: 0 embedded, 0 updated, 10 unchanged, 0 deleted"
    assert contents(url) == first

    changed = [dict(row) for row in DOCUMENTS[1:]] + [{"_id": "new", "text": "a new one"}]
    changed[0]["text"] = "something else"
    changed[1]["year"] = 1900
    assert index(url, model, write(corpus, changed)) == 0
    assert said(capsys) == "docs: 2 embedded, 1 updated, 7 unchanged, 1 deleted"
    found = contents(url)
    assert sorted(found) == sorted(row["_id"] for row in changed)
    assert found["d1"][0].text == "something else" and found["d1"][1] != first["d1"][1]
    assert found["d2"][0].metadata["year"] == 1900 and found["d2"][1] == first["d2"][1]
    assert index(url, model, write(corpus, changed[:2]), delete="false") == 0
    assert len(contents(url)) == 10


def test_what_a_client_writes_meanwhile_is_left(
    url: str,
    model: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Over a document that is gone from the corpus, and one of which only the metadata differ."""
    index(url, model, corpus)
    store = open_store(url)
    table = live(store)
    vectors, delete = type(table).vectors, type(table).delete
    late = [client_document("of a client", "d0"), client_document("of a client", "d1")]

    def writing(of: Any) -> Any:
        def do(self: Table, *given: Any) -> Any:
            self.upsert([late.pop()], np.eye(1, 32, dtype=np.float32))
            return of(self, *given)

        return do

    monkeypatch.setattr(type(table), "vectors", writing(vectors))
    monkeypatch.setattr(type(table), "delete", writing(delete))
    store.close()
    capsys.readouterr()
    assert index(url, model, write(corpus, [DOCUMENTS[1] | {"year": 1}, *DOCUMENTS[3:]])) == 0
    assert said(capsys).endswith(", 1 deleted")
    monkeypatch.undo()
    found = contents(url)
    assert sorted(found) == ["d0", "d1", *(f"d{at}" for at in range(3, 10))]
    assert {found[each][0].text for each in ("d0", "d1")} == {"of a client"}


def test_of_a_run_the_model_is_indexed_that_is_served(
    model: Path, other_model: Path, corpus: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(model, tmp_path / "run")
    shutil.copytree(other_model, run / "checkpoint-1")
    (run / BEST_FILE).write_text('{"checkpoint": "checkpoint-1"}')
    assert index(str(tmp_path / "s"), run, corpus) == 0
    store = open_store(str(tmp_path / "s"))
    open_live(store, "docs", fingerprint(Embedder.from_pretrained(other_model)))
    store.close()


def test_sources_leave_each_other_alone(
    url: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one.jsonl", DOCUMENTS[:3])
    other = write(tmp_path / "other.jsonl", DOCUMENTS[3:5])
    index(url, model, one)
    index(url, model, other, source="other")
    index(url, model, write(one, DOCUMENTS[1:3]))
    assert sorted(contents(url)) == ["d1", "d2", "d3", "d4"]
    capsys.readouterr()
    index(url, model, write(one, DOCUMENTS[1:4]))
    assert "1 updated, 2 unchanged, 1 taken over from other sources" in said(capsys)


def test_a_length_above_the_models_own_is_that_of_its_vectors(model: Path) -> None:
    opened = Embedder.from_pretrained(model, max_length=8)
    assert fingerprint(opened).max_length == 8
    assert fingerprint(opened, 16).max_length == 16
    text = "a cat " * 20
    assert not torch.equal(opened.encode([text]), opened.encode([text], max_length=16))


def test_another_model_is_refused_and_migrated_to(
    url: str, model: Path, other_model: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(url, model, corpus)
    store = open_store(url)
    old = live(store)
    written = Document("from a client", "a document of a client", {"by": "me"}, "api")
    old.upsert([written], np.eye(1, 32, dtype=np.float32))
    store.close()
    before = contents(url)
    assert index(url, other_model, corpus) == 2
    error = capsys.readouterr().err
    assert "(by model): the weights, tokenizer or configuration differ" in error
    assert "--migrate true" in error
    assert contents(url) == before
    for flags in ({"document_max_length": 5}, {"document_prompt": "d: "}, {"dtype": "float16"}):
        assert index(url, model, corpus, **flags) == 2
        assert (
            next(iter(flags)).split("_")[-1].replace("length", "tokens") in capsys.readouterr().err
        )
    assert index(url, other_model, corpus, migrate="true") == 0
    after = contents(url)
    assert [each for each, _ in after.values()] == [each for each, _ in before.values()]
    texts = [each.text for each, _ in after.values()]
    found = [vector for _, vector in after.values()]
    np.testing.assert_allclose(found, unit(other_model, texts), atol=1e-6)
    # And back: nothing is embedded again, and then nothing is left over.
    capsys.readouterr()
    assert index(url, model, corpus, migrate="true") == 0
    assert said(capsys) == "docs: 0 embedded, 0 updated, 10 unchanged, 0 deleted"
    assert contents(url) == before
    assert main(["--store", url, "--prune", "true"]) == 0
    store = open_store(url)
    assert [name for name in store.tables() if name.startswith("docs__")] == [
        name for name in store.tables() if name.startswith(find_live(store, "docs")["table"])
    ]
    store.close()
    assert contents(url) == before


def client_document(text: str, identity: str = "mine") -> Document:
    return Document(identity, text, {}, "api")


def written(url: str, *documents: Document, delete: Sequence[str] = ()) -> None:
    """As a server writes and deletes: into the table that is live."""
    store = open_store(url)
    table = live(store)
    table.upsert(documents, np.eye(len(documents), 32, dtype=np.float32))
    table.delete(delete)
    store.close()


@pytest.mark.parametrize("moment", ["build_index", "publish"])
def test_what_clients_write_until_the_switch_is_moved(
    moment: str, url: str, model: Path, other_model: Path, corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    index(url, model, corpus)
    written(url, client_document("one", "a"), client_document("two", "b"))
    store = open_store(url)
    old = live(store)
    kind = type(old) if moment == "build_index" else type(store)
    store.close()
    do = getattr(kind, moment)

    def writing(self: Any, *given: Any) -> None:
        if not url.startswith("qdrant:"):  # its local mode is for one process, and one client
            written(url, client_document("late"), client_document("changed", "a"), delete=["b"])
        do(self, *given)

    monkeypatch.setattr(kind, moment, writing)
    assert index(url, other_model, corpus, migrate="true") == 0
    found = {each.id: each.text for each, _ in contents(url).values() if each.source == "api"}
    late = {"a": "changed", "mine": "late"}
    assert found == ({"a": "one", "b": "two"} if url.startswith("qdrant:") else late)


def test_a_switch_that_is_killed_or_written_to_loses_nothing(
    model: Path, other_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "s")
    index(url, model, corpus)
    store = open_store(url)
    publish, tables = type(store).publish, [find_live(store, "docs")["table"]]

    def publishing(self: Store, *given: Any) -> None:
        if len(tables) == 1:
            written(url, client_document("until the switch", "old"))
        publish(self, *given)
        tables.append(find_live(self, "docs")["table"])
        if len(tables) == 2:
            raise RuntimeError("killed")
        if tables[-1] != tables[0]:
            written(url, client_document("to a server of the new model", "new"))

    monkeypatch.setattr(type(store), "publish", publishing)
    with pytest.raises(RuntimeError, match="killed"):
        index(url, other_model, corpus, migrate="true")
    assert index(url, other_model, corpus, migrate="true") == 0
    found = contents(url)
    assert sorted(each.id for each, _ in found.values() if each.source == "api") == ["new", "old"]


def test_what_is_deleted_while_it_is_moved_is_gone(
    model: Path, other_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "s")
    index(url, model, corpus)
    written(url, client_document("one", "a"))
    kind = type(live(open_store(url)))
    documents, reads = kind.documents, list[Sequence[str]]()

    def reading(self: Table, ids: Sequence[str]) -> dict[str, Document]:
        reads.append(ids)
        if reads.count(["a"]) == 2:  # it has been moved, and the old table is closed
            written(url, delete=["a"])
        return documents(self, ids)

    monkeypatch.setattr(kind, "documents", reading)
    assert index(url, other_model, corpus, migrate="true") == 0
    assert len(reads) == 2 and "a" not in contents(url)


def test_what_is_not_to_be_deleted_is_migrated(
    model: Path, other_model: Path, tmp_path: Path
) -> None:
    url = str(tmp_path / "s")
    first = write(tmp_path / "first.jsonl", DOCUMENTS[:5])
    second = write(tmp_path / "second.jsonl", DOCUMENTS[4:8])
    index(url, model, first, delete="false")
    index(url, model, second, delete="false")
    written(url, client_document("one", "a"))
    last = write(tmp_path / "last.jsonl", DOCUMENTS[7:9])  # one of them is new
    assert index(url, other_model, last, delete="false", migrate="true") == 0
    found = contents(url)
    assert list(found) == ["a", *(f"d{at}" for at in range(9))]
    np.testing.assert_allclose(
        [vector for _, vector in found.values()],
        unit(other_model, [each.text for each, _ in found.values()]), atol=1e-6,
    )  # fmt: skip
    written(url, delete=["d1"])
    assert index(url, model, last, delete="false", migrate="true") == 0
    assert list(contents(url)) == [each for each in found if each != "d1"]
    assert index(url, other_model, last, migrate="true") == 0
    assert list(contents(url)) == ["a", "d7", "d8"]


def test_what_clients_deleted_stays_deleted(
    url: str, model: Path, other_model: Path, corpus: Path
) -> None:
    index(url, model, corpus)
    written(url, client_document("one", "a"), client_document("over the corpus", "d1"))
    assert index(url, other_model, corpus, migrate="true") == 0
    assert contents(url)["d1"][0].source == "corpus"  # it wins, as without a migration
    written(url, client_document("two", "b"), delete=["a"])
    assert index(url, model, corpus, migrate="true") == 0
    found = contents(url)
    assert sorted(each for each in found if each not in {row["_id"] for row in DOCUMENTS}) == ["b"]
    assert found["d1"][0].source == "corpus"


def test_pruning_spares_other_collections_and_waits_for_indexers(
    url: str, model: Path, other_model: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(url, model, corpus)
    index(url, model, corpus, collection="docs__old")
    before = contents(url, "docs__old")
    assert index(url, other_model, corpus, migrate="true", prune="true") == 0
    assert contents(url, "docs__old") == before
    capsys.readouterr()
    store = open_store(url)
    if "qdrant" not in url:  # which has no locks
        with store.lock("docs"):
            assert main(["--store", url, "--prune", "true"]) == 2
        assert "another process is indexing the collection 'docs'" in capsys.readouterr().err
    store.close()


@pytest.mark.parametrize("kind", ["lancedb", "postgresql", "qdrant engine"])
def test_killed_at_any_moment_it_ends_equal(
    kind: str, model: Path, tmp_path: Path, new_url: Callable[[str], str]
) -> None:
    """By SIGKILL, while it embeds, writes, deletes, indexes or publishes."""
    rows = [{"_id": f"{at + 1}", "text": f"{TEXTS[at % 10]} {at}", "n": at} for at in range(120)]
    corpus = write(tmp_path / "corpus.jsonl", rows)
    whole, killed = new_url(kind), new_url(kind)
    old = write(tmp_path / "old.jsonl", [*rows[:5], {"_id": "x", "text": "x"}])
    for url in (whole, killed):  # something to delete, and to replace
        assert index(url, model, old) == 0
    command = ["scripts/index.py", "--model", model, "--corpus", corpus, "--block_size", 8]
    begun = time.monotonic()
    run = Copy([*command, "--store", whole])
    assert run.wait() == 0, run.errors
    seconds = time.monotonic() - begun
    draw = random.Random(0)
    for _ in range(4):
        run = Copy([*command, "--store", killed])
        time.sleep(draw.uniform(0.2, 1.0) * seconds)
        run.send_signal(signal.SIGKILL)
        run.wait()
    run = Copy([*command, "--store", killed])
    assert run.wait() == 0, run.errors
    assert contents(killed) == contents(whole)


@pytest.mark.parametrize("kind", ["lancedb", "qdrant engine"])
def test_two_processes_make_the_same(
    kind: str, model: Path, corpus: Path, new_url: Callable[[str], str]
) -> None:
    command = ["scripts/index.py", "--model", model, "--corpus", corpus, "--block_size", 4]
    one, two = new_url(kind), new_url(kind)
    assert index(one, model, corpus, block_size=4) == 0
    together(2, [*command, "--store", two])
    assert contents(two) == contents(one)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--collection", "Docs!"], "collection: 'Docs!': give up to 30 small letters"),
        (["--model", "m"], "corpus: is missing; give --model and --corpus"),
        (
            ["--store", f"mysql://a:{'s' * 6}@b/c"],
            "store: mysql://a:***@b/c: unknown kind of store",
        ),
        (
            ["--store", f"mysql://b/c?user=a&password={'s' * 6}"],
            "store: mysql://b/c?user=a&password=***: unknown kind of store",
        ),
        (["--store", ""], "store: is an empty text; give a value"),
        (["--store", "qdrant:"], "store: 'qdrant:' names no folder; give one"),
        (["--dtype", "int8"], "dtype"),
        (["--max_length", "9"], "max_length: only documents are embedded here; give document_max"),
        (
            ["--query_prompt", "q"],
            "query_prompt: only documents are embedded here; give document_p",
        ),
    ],
)
def test_mistakes_are_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [] if "--store" in flags else ["--store", str(tmp_path / "s")]
    given += [] if "--model" in flags else ["--list", "true"]
    assert main([*given, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "a", "text": ""}, "corpus.jsonl:2: the document has no text"),
        (
            {"_id": "d0", "text": "x"},
            "corpus.jsonl: 1 ids are repeated, and ids must be unique: 'd0'",
        ),
        ({"_id": "a", "text": "x\0"}, 'corpus.jsonl:2: "text" contains a NUL character'),
        ({"_id": "a", "text": "x", "m": ["\0"]}, 'corpus.jsonl:2: "m" contains a NUL character'),
        ({"_id": "a"}, 'corpus.jsonl:2: missing field "text"'),
    ],
)
def test_bad_documents_are_named_before_a_model_is_opened(
    row: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write(tmp_path / "corpus.jsonl", [DOCUMENTS[0], row])
    assert index(str(tmp_path / "s"), Path("no-model"), corpus) == 2
    assert message in capsys.readouterr().err


def test_a_reranker_is_refused(corpus: Path, tmp_path: Path, capsys: Any) -> None:
    reranker = save_classifier(tmp_path / "reranker")
    assert index(str(tmp_path / "s"), reranker, corpus) == 2
    assert f"model: {reranker} is of kind reranker; give an embedder" in capsys.readouterr().err


def test_the_lines_of_repeated_texts_without_ids_are_named(tmp_path: Path, capsys: Any) -> None:
    rows = [{"text": text} for text in ("one", "two", "one")] + [{"text": "two", "id": "2"}]
    corpus = write(tmp_path / "corpus.jsonl", rows)
    assert index(str(tmp_path / "s"), Path("no-model"), corpus) == 2
    assert capsys.readouterr().err == (
        f"error: {corpus}: 1 documents without an id have the text of an earlier one, and are "
        f"known by it: give them ids, or leave them out: '{corpus}:3'\n"
    )


def test_documents_without_ids_are_known_by_their_texts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": text} for text in TEXTS]
    url = str(tmp_path / "s")
    index(url, model, write(tmp_path / "corpus.jsonl", rows))
    capsys.readouterr()
    index(url, model, write(tmp_path / "corpus.jsonl", rows[::-1]))
    assert said(capsys) == "docs: 0 embedded, 0 updated, 10 unchanged, 0 deleted"


def test_a_server_that_is_away_is_one_line(model: Path, corpus: Path, capsys: Any) -> None:
    word = "hidden"
    for url in (f"postgresql://u:{word}@127.0.0.1:1/x", "qdrant+http://127.0.0.1:1"):
        assert index(url, model, corpus) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: store: ") and word not in error
        assert error.count("\n") == 1
