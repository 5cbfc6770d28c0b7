"""Records become documents: nothing is lost, and what no database can hold is refused."""

import dataclasses
import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaders.parsing.fields import RowError
from stores import open_store
from stores.documents import corpus_files, document_of
from stores.store import Layout


def test_all_but_id_and_text_are_metadata() -> None:
    fields = {
        "id": 17, "docno": "17", "doc_id": None, "pid": "", "title": "T", "text": "x",
        "content": "<p>x</p>", "back": "\\u0000", "day": datetime.date(2024, 2, 29),
        "at": datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC), "n": {"deep": [None, 1.5]},
        "big": 2**63 - 1,
    }  # fmt: skip
    document = document_of(fields)
    assert (document.id, document.text) == ("17", "T x")
    assert document.metadata == {
        "title": "T", "content": "<p>x</p>", "back": "\\u0000", "day": "2024-02-29",
        "at": "2024-01-01T12:00:00+00:00", "n": {"deep": [None, 1.5]}, "big": 2**63 - 1,
    }  # fmt: skip
    assert len(document.digest) == 64
    assert document_of({"contents": "x", "text": None}).metadata == {"text": None}


def test_an_object_of_metadata_is_the_metadata() -> None:
    """As documents are given back, and as frameworks write them."""
    given = document_of({"id": "a", "text": "x", "metadata": {"lang": "en", "title": "T"}, "n": 1})
    assert given.metadata == {"lang": "en", "title": "T", "n": 1} and given.text == "x"
    again = document_of({"id": "a", "text": given.text, "metadata": given.metadata})
    assert again == dataclasses.replace(given, metadata=given.metadata)
    odd = {"metadata": {"metadata": {"n": 1}}}
    assert document_of({"text": "x"} | odd).metadata == odd["metadata"]
    assert document_of({"text": "x", "metadata": "a text"}).metadata == {"metadata": "a text"}


@pytest.mark.parametrize("form", ["docs.jsonl", "2024/more.jsonl.gz", "linked/x.parquet"])
def test_files_of_folders_are_found(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    path = folder / form
    path.parent.mkdir(parents=True)
    path.touch()
    for other in (".cache/a.jsonl", "readme.md", "2024/notes.csv"):
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).touch()
    assert corpus_files([str(folder)]) == [path]
    (tmp_path / "link").symlink_to(folder)
    (folder / "self").symlink_to(folder)
    assert corpus_files([str(tmp_path / "link")]) == [tmp_path / "link" / form]
    (path.parent / "queries.jsonl").touch()
    with pytest.raises(ValueError, match=r"queries.jsonl holds queries, by its name, and .* name"):
        corpus_files([str(folder)])
    (folder / "corpus.jsonl").touch()
    assert corpus_files([str(folder)]) == [folder / "corpus.jsonl"]


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "chunk 2", "doc_id": "d"}, "doc_id and id are both read as its id, and differ"),
        ({"id": "x" * 513}, '"id" has 513 characters, more than 512'),
        ({"m": "\0"}, '"m" contains a NUL character'),
        ({"m": [{"\0": 1}]}, '"m" contains a NUL character'),
        ({"a\0": 1}, '"a name" contains a NUL character'),
        ({"m": {"n": "\ud800"}}, r'"m" contains \ud800, one half of a surrogate pair'),
        ({"m": float("nan")}, '"m": nan cannot be stored; numbers end at 2^63'),
        ({"m": [float("-inf")]}, '"m": -inf cannot be stored'),
        ({"m": 2**63}, '"m": 9223372036854775808 cannot be stored'),
        ({"m": 1e300}, '"m": 1e+300 cannot be stored'),
        ({"m": decimal.Decimal("1.5")}, '"m": a Decimal cannot be stored; write it as a text'),
        ({"m": b"x"}, '"m": a bytes cannot be stored'),
        ({"m": nested(5000)}, '"m" is nested too deeply'),
        ({"m": nested(101)}, '"m" is nested too deeply; 100 levels are kept'),
        (
            {"url.host": "x"},
            '"url.host": a dot leads into an object in filters; rename it, or write an object '
            "{'url': {'host': '...'}}",
        ),
        ({"metadata": {"a.b": 1}}, '"a.b": a dot leads into an object'),
        ({"m": [{"a.b": 1}]}, '"a.b": a dot leads into an object'),
        ({"metadata": {"n": 1}, "n": 2}, '"n" is both in "metadata" and beside it; leave one out'),
    ],
)
def test_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError) as error:
        document_of({"text": "x"} | fields)
    assert message in str(error.value)


def test_the_longest_ids_fit(url: str) -> None:
    store = open_store(url)
    table = store.open("t", Layout(2), create=True)
    documents = [document_of({"id": "😀" * 511 + each, "text": "x"}) for each in "ab"]
    table.upsert(documents, np.eye(2, dtype=np.float32))
    assert set(table.documents([each.id for each in documents])) == {each.id for each in documents}
    table.delete([documents[0].id])
    assert table.count() == 1
    store.close()
