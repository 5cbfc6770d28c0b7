"""Documents from files: each text once, in order, with the ids that link them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from loaders import ReadOptions
from mining.data.corpus import Corpus, build_corpus
from mining.data.documents import Document, corpus_documents, training_documents
from mining.work import work_folder


def write(path: Path, rows: Iterable[object]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def texts(corpus: Corpus) -> list[str]:
    return corpus.slice(0, len(corpus))


def test_texts_are_kept_once_in_order_and_positives_stand_behind(tmp_path: Path) -> None:
    documents = [Document(text, None) for text in ("b", "a", "b", "天气", "a", "c")]
    positives = [Document(text, None) for text in ("a", "外面", "外面", "z")]
    corpus = build_corpus(tmp_path / "corpus", documents, positives)
    assert texts(corpus) == ["b", "a", "天气", "c", "外面", "z"]
    assert (corpus.searchable, corpus.empty) == (4, 0)
    assert corpus.find(["z", "b", "B", "天气"]).tolist() == [5, 0, -1, 2]
    assert corpus.at([3, 0]) == ["c", "b"]
    assert corpus.ids_of(4) == set()


def test_a_text_has_all_its_ids_and_no_others(tmp_path: Path) -> None:
    rows = [("a", "1"), ("b", "2"), ("c", "1"), ("d", None), ("b", "3"), ("e", "3"), ("f", None)]
    corpus = build_corpus(
        tmp_path / "corpus", (Document(*row) for row in rows), [Document("g", "2")]
    )
    ids = {text: corpus.ids_of(place) for place, text in enumerate(texts(corpus))}
    assert ids["a"] == ids["c"] and len(ids["a"]) == 1
    # "b" stands there with the ids 2 and 3, which does not make "e" a part of the document of "g".
    assert ids["b"] == ids["e"] | ids["g"]
    assert ids["e"] != ids["g"]
    assert ids["d"] == ids["f"] == set()


def test_the_digest_is_that_of_texts_order_and_ids(tmp_path: Path) -> None:
    def digest(name: str, *documents: tuple[str, str | None]) -> str:
        return build_corpus(tmp_path / name, (Document(*d) for d in documents), []).digest

    one = digest("one", ("a", None), ("b", None))
    assert digest("same", ("a", None), ("b", None)) == one
    others = [
        digest("order", ("b", None), ("a", None)),
        digest("text", ("a", None), ("c", None)),
        digest("id", ("a", "1"), ("b", "1")),
    ]
    assert len({one, *others}) == 4


def test_a_corpus_of_the_beir_layout_and_of_mldr(tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    write(
        folder / "corpus.jsonl",
        [
            {"_id": "1", "title": "Cats", "text": "They sleep."},
            {"_id": "2", "title": "", "text": "狗在跑。"},
            {"_id": "3", "text": ""},
        ],
    )
    write(folder / "queries.jsonl", [{"_id": "q", "text": "not a document"}])
    mldr = write(tmp_path / "mldr.jsonl", [{"docid": 7, "text": "A long one."}])
    found = list(corpus_documents([str(folder), mldr], ReadOptions()))
    assert found == [("Cats They sleep.", "1"), ("狗在跑。", "2"), ("", "3"), ("A long one.", "7")]
    corpus = build_corpus(tmp_path / "corpus", found, [])
    assert texts(corpus) == ["Cats They sleep.", "狗在跑。", "A long one."]
    assert corpus.empty == 1


def test_documents_of_training_rows_with_their_ids(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "pos": ["a"], "neg": ["b", "c"]},
        {"query": "q", "pos_doc": "d", "negatives": ["e"]},
        {
            "query_id": "1",
            "query": "谁？",
            "positive_passages": [{"docid": "p1", "text": "f"}],
            "negative_passages": [{"docid": "n1", "text": "g"}],
        },
        {"query": "q", "hits": [{"content": "h", "label": 1}, {"content": "i", "label": 0.2}]},
        {"query": "q", "doc": "j", "rel": 0.9},
        {"query": "q", "doc": "k", "rel": 0.1},
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    found = list(training_documents([file], ReadOptions()))
    assert "".join(document.text for document in found) == "abcdefghijk"
    assert {d.text: d.id for d in found if d.id} == {"f": "p1", "g": "n1"}
    positives = training_documents([file], ReadOptions(), positives_only=True)
    assert [document.text for document in positives] == ["a", "d", "f", "h", "j"]
    # A training file can be a corpus.
    assert list(corpus_documents([file], ReadOptions())) == found


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"_id": "1", "body": "x"}, ':2: missing field "text"'),
        (["x"], r":2: expected an object with _id and text, got \['x'\]"),
        ({"_id": 1.5, "text": "x"}, ':2: "_id" must be a text or a whole number'),
        ({"text": "x", "title": 3}, ':2: "title" must be a text, got 3'),
        ({"text": "a\0b"}, ':2: "text" contains a NUL character'),
    ],
)
def test_what_is_no_document_is_named(row: object, message: str, tmp_path: Path) -> None:
    file = write(tmp_path / "corpus.jsonl", [{"_id": "0", "text": "good"}, row])
    with pytest.raises(ValueError, match=message):
        list(corpus_documents([file], ReadOptions()))


def test_a_corpus_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the corpus has no document with a text"):
        build_corpus(tmp_path / "corpus", [Document("", "1")], [])


def test_a_machine_without_the_folder_of_the_first_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a cache_dir that all machines share"):
        Corpus(tmp_path / "corpus")


def test_a_run_keeps_its_folder_until_it_is_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), work_folder(tmp_path, ["run", 1]) as first:
        build_corpus(first / "corpus", [Document("a", None)], [])
        raise KeyboardInterrupt
    with work_folder(tmp_path, ["run", 2]) as other:
        assert other != first
    with work_folder(tmp_path, ["run", 1]) as again:
        assert again == first

        def unread() -> Iterable[Document]:
            return (pytest.fail("built once more") for _ in [0])

        corpus = build_corpus(again / "corpus", unread(), unread())
        assert texts(corpus) == ["a"]
        with (
            pytest.raises(ValueError, match="the same run is already in progress"),
            work_folder(tmp_path, ["run", 1]),
        ):
            pass
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.realdata
def test_a_real_corpus(realdata: Callable[[str], Path], tmp_path: Path) -> None:
    folder = realdata("cn_medical_qa")
    corpus = build_corpus(tmp_path / "corpus", corpus_documents([str(folder)], ReadOptions()), [])
    lines = (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    assert texts(corpus) == list(dict.fromkeys(json.loads(line)["text"].strip() for line in lines))
