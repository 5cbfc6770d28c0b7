"""What is kept beside the vectors has one form in a collection, and a version that tells it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from encoders import Embedder
from scripts.index import main
from stores import Document, open_store
from stores import collection as collections
from stores.collection import FORMAT, find_live, is_table_of, open_live
from stores.databases.lance_sql import sortable
from stores.databases.postgres_words import tsvector
from stores.databases.qdrant_models import requests
from stores.filters import parse_filter
from stores.fingerprint import fingerprint
from tiny import TEXTS, save_backbone
from zoo import embedder

DOCUMENT = Document(
    "d1",
    "Read the CSV file_2 of 32 ℃: ＢＭ２５ 检索模型 が カタカナ हिन्दी cafés",
    {"lang": "zh", "year": 2024, "tags": ["a", 1.5, [True]], "who": [{"name": "é"}, {"n": None}]},
    "api",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return embedder(folder / "model", save_backbone(folder / "base"))


def run(url: str, model: Path, corpus: Path, *flags: str) -> int:
    return main(["--store", url, "--model", str(model), "--corpus", str(corpus), *flags])


def test_the_version_is_raised_with_any_change_of_what_is_kept() -> None:
    # Where this fails, collections that exist cannot be searched as before: raise FORMAT.
    ((point,),) = requests([DOCUMENT], np.ones((1, 2), np.float32), mean=7.0)
    in_lance, in_postgres = sortable(DOCUMENT.metadata), tsvector(DOCUMENT.words)
    stored = [DOCUMENT.words, point.model_dump(), in_lance, in_postgres]
    kept = json.dumps(stored, ensure_ascii=False, default=str)
    assert {FORMAT: hashlib.sha256(kept.encode()).hexdigest()[:16]} == {2: "bd1066a9e367ea49"}


@pytest.mark.parametrize("is_noted", (True, False))
def test_another_version_is_refused_and_migrated_to(
    url: str,
    model: Path,
    tmp_path: Path,
    is_noted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = [{"id": f"d{at}", "text": text, "n": at} for at, text in enumerate(TEXTS)]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(collections, "FORMAT", 1)
    assert run(url, model, corpus) == 0
    monkeypatch.undo()
    store = open_store(url)
    about = find_live(store, "docs")
    assert about["format"] == 1
    if not is_noted:  # the first version noted none
        store.publish("docs", {name: of for name, of in about.items() if name != "format"})
    made_by = fingerprint(Embedder.from_pretrained(model))
    with pytest.raises(ValueError, match=r"'docs' was indexed by another version .*--migrate"):
        open_live(store, "docs", made_by)
    store.close()
    capsys.readouterr()

    assert run(url, model, corpus) == 2
    error = capsys.readouterr().err
    assert f"the storage format (1 there, {FORMAT} here) differ" in error
    assert "--migrate true" in error

    assert run(url, model, corpus, "--migrate", "true", "--prune", "true") == 0
    store = open_store(url)
    where = parse_filter({"n": {"gte": 3}})
    table = open_live(store, "docs", made_by)
    found = table.search_words(["the"], 10, where)
    by_hand = [row["id"] for row in rows[3:] if "the" in str(row["text"]).lower().split()]
    assert by_hand and {hit.id for hit in found} == set(by_hand)
    assert [each for each in store.tables() if is_table_of(each, "docs")] == [
        find_live(store, "docs")["table"]
    ]
    store.close()
