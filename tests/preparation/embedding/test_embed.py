"""prepare_data.py embed: shards in any form, shared out, stopped and resumed; the same vectors."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoders import Embedder
from forked import Copy, together
from preparation.embedding.documents import EmbedDocuments
from preparation.embedding.shards import find_shards
from scripts.prepare_data import main
from served import until
from tiny import TEXTS

SHARDS = 24


def corpus(folder: Path) -> Path:
    """Shards of JSON Lines and Parquet."""
    folder.mkdir()
    for shard in range(SHARDS):
        rows = [
            {"_id": f"{shard}-{at}", "title": TEXTS[at % 3], "text": f"{TEXTS[at % 10]} {at}"}
            for at in range(40 + shard)
        ]
        file = folder / f"part-{shard:02}"
        if shard % 2:
            pq.write_table(pa.Table.from_pylist(rows), file.with_suffix(".parquet"))
        else:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            file.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "shards")


@pytest.fixture(scope="module")
def model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedder") / "model"
    prompts = {"query": "the cat ", "document": "dog "}
    Embedder.from_pretrained(tiny_bert, prompts=prompts).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preparation.embedding.shards.DOCUMENTS_AT_ONCE", 16)


def flags(model: Path, shards: Path, output: Path, *more: object) -> list[str]:
    return [
        str(word) for word in ("--model", model, "--input", shards, "--output_dir", output, *more)
    ]


def embed(words: list[str]) -> int:
    return main(["embed", *words])


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(shards: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a process of its own wrote in one go."""
    output = tmp_path_factory.mktemp("whole") / "vectors"
    copy = Copy(["scripts/prepare_data.py", "embed", *flags(model, shards, output)])
    assert copy.wait() == 0, copy.errors
    assert len(list(output.iterdir())) == SHARDS
    return output


def test_the_vectors_are_those_of_encode(shards: Path, model: Path, whole: Path) -> None:
    rows = pq.read_table(shards / "part-01.parquet").to_pylist()
    found = pq.read_table(whole / "part-01.parquet")
    assert found.column_names == ["id", "vector"]
    assert found["id"].to_pylist() == [row["_id"] for row in rows]
    texts = [f"{row['title']} {row['text']}" for row in rows]
    wanted = Embedder.from_pretrained(model).encode(texts, prompt_name="document")
    np.testing.assert_allclose(found["vector"].to_pylist(), wanted, atol=1e-6)
    assert found.schema.field("vector").type == pa.list_(pa.float32())


def test_two_processes_write_what_one_does(
    shards: Path, model: Path, whole: Path, tmp_path: Path
) -> None:
    told = together(2, ["scripts/prepare_data.py", "embed", *flags(model, shards, tmp_path)])
    assert content(tmp_path) == content(whole)
    assert told.count(f"of {SHARDS // 2})") == SHARDS  # shared equally


def test_a_killed_run_goes_on(shards: Path, model: Path, whole: Path, tmp_path: Path) -> None:
    command = ["scripts/prepare_data.py", "embed", *flags(model, shards, tmp_path)]
    copy = Copy(command)
    until(lambda: any(tmp_path.glob("*.parquet")))
    copy.send_signal(signal.SIGKILL)
    copy.wait()
    done = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.parquet")}
    assert 0 < len(done) < SHARDS
    again = Copy(command)
    assert again.wait() == 0, again.errors
    assert f"{len(done)} of {SHARDS} shards are there already" in again.output
    assert content(tmp_path) == content(whole)
    assert {file: file.stat().st_mtime_ns for file in done} == done


def test_a_kill_within_a_shard_leaves_nothing_that_counts(
    shards: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Killed(BaseException):
        pass

    usual, batches = EmbedDocuments.embed, []

    def fault(self: EmbedDocuments, *batch: Any) -> pa.Table:
        batches.append(batch)
        if len(batches) == 2:
            raise Killed
        return usual(self, *batch)

    given = flags(model, shards / "part-00.jsonl", tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(EmbedDocuments, "embed", fault)
        embed(given)
    assert [file.name for file in tmp_path.iterdir()] == [".part-00.parquet.part"]
    assert embed(given) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["part-00.parquet"]
    assert "of no shard" not in capsys.readouterr().out
    assert embed(flags(model, shards / "part-02.jsonl", tmp_path)) == 0
    told = f"vectors of no shard of the input: '{tmp_path}/part-00.parquet'; remove those"
    assert told in capsys.readouterr().out
    assert pq.read_metadata(tmp_path / "part-00.parquet").num_rows == 40


def test_what_another_model_or_setting_wrote_is_refused(
    shards: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "some.jsonl"
    source.write_bytes((shards / "part-00.jsonl").read_bytes())
    target = tmp_path / "vectors" / "some.parquet"
    given = flags(model, source, target.parent)
    assert embed(given) == 0
    before = target.read_bytes()
    changed = Embedder.from_pretrained(model)
    next(changed.parameters()).data[0, 0] += 1
    changed.save_pretrained(tmp_path / "other")
    capsys.readouterr()
    for words, name in (
        (flags(tmp_path / "other", source, target.parent), "model"),
        ([*given, "--dtype", "float16"], "dtype"),
        ([*given, "--document_prompt", "cat "], "prompt"),
        ([*given, "--document_max_length", "9"], "max length"),
    ):
        assert embed(words) == 2
        error = f"error: {target} is there already, of another {name}; remove it"
        assert capsys.readouterr().err.startswith(error)
    text = source.read_text("utf-8")
    for other in (text + '{"_id": "new", "text": "a"}\n', text.replace("cat", "dog", 1)):
        source.write_text(other, encoding="utf-8")
        assert embed(given) == 2
        assert "of another input; remove it" in capsys.readouterr().err
    assert target.read_bytes() == before
    target.write_bytes(b"something else")
    assert embed(given) == 2
    assert f"{target} cannot be read" in capsys.readouterr().err


def test_half_precision_and_fewer_dimensions(shards: Path, model: Path, tmp_path: Path) -> None:
    file = shards / "part-01.parquet"
    assert embed(flags(model, file, tmp_path, "--dtype", "float16", "--truncate_dim", 8)) == 0
    found = pq.read_table(tmp_path / "part-01.parquet")
    assert found.schema.field("vector").type == pa.list_(pa.float16())
    wanted = EmbedDocuments(str(model), truncate_dim=8)(pq.read_table(file))
    np.testing.assert_allclose(
        np.array(found["vector"].to_pylist(), np.float32), wanted["vector"].to_pylist(), atol=1e-3
    )
    assert {len(row) for row in wanted["vector"].to_pylist()} == {8}


def test_bad_shards_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = '{"_id": "1", "text": "a cat"}\n'
    for line, reason in (
        ('{"text": "a"}', "missing id"),
        ('{"_id": "2"}', 'missing field "text"'),
        ('{"_id": "2", "text": 5}', '"text" must be a text'),
        ('{"_id": "2", "te', "not JSON"),
    ):
        (tmp_path / "a.jsonl").write_text(good, encoding="utf-8")
        file = tmp_path / "b.jsonl"
        file.write_text(good + line + "\n", encoding="utf-8")
        output = tmp_path / reason.split()[-1]
        assert embed(flags(model, tmp_path / "*.jsonl", output)) == 2
        assert capsys.readouterr().err.startswith(f"error: {file}:2: {reason}")
        assert [path.name for path in output.glob("*.parquet")] == ["a.parquet"]
    broken = tmp_path / "c.parquet"
    broken.write_bytes(b"PAR1")
    assert embed(flags(model, broken, tmp_path / "out")) == 2
    assert str(broken) in capsys.readouterr().err


def test_bad_names_are_refused(
    model: Path, tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(flags(model, tmp_path / "none", tmp_path)) == 2
    assert f"{tmp_path / 'none'} names no file" in capsys.readouterr().err
    for name in ("a/x.jsonl", "b/x.jsonl.gz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("", encoding="utf-8")
    both = tmp_path / "*/x.jsonl*"
    assert embed(flags(model, both, tmp_path / "out")) == 2
    assert "would both be" in capsys.readouterr().err
    # In a folder, the folders within keep them apart.
    (tmp_path / "b/x.jsonl.gz").rename(tmp_path / "b/x.jsonl")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in "ab":
        (tmp_path / name).rename(corpus / name)
    assert embed(flags(model, corpus, tmp_path / "out")) == 0
    assert pq.read_metadata(tmp_path / "out/a/x.parquet").num_rows == 0
    assert embed(flags(tiny_classifier, corpus / "a", tmp_path / "out")) == 2
    assert "give an embedder" in capsys.readouterr().err


def test_a_link_to_a_shard_is_no_second_one(tmp_path: Path) -> None:
    shard = tmp_path / "corpus" / "v2" / "a.jsonl"
    shard.parent.mkdir(parents=True)
    shard.touch()
    (tmp_path / "corpus" / "latest").symlink_to("v2")
    (found,) = find_shards([str(tmp_path / "corpus")], tmp_path / "out")
    assert found == (shard, tmp_path / "out" / "v2" / "a.parquet")


def test_vectors_do_not_go_among_the_documents(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There they would be read as documents by the next run, or replace them."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    pq.write_table(pa.table({"id": ["1"], "text": ["a cat"]}), corpus / "x.parquet")
    assert embed(flags(model, corpus, corpus / "vectors")) == 2
    assert f"output_dir: {corpus / 'vectors'} is within {corpus}" in capsys.readouterr().err
    assert embed(flags(model, corpus / "*.parquet", corpus)) == 2
    assert f"output_dir: {corpus} is where {corpus / 'x.parquet'} is" in capsys.readouterr().err
    assert pq.read_table(corpus / "x.parquet").column_names == ["id", "text"]


def test_a_length_is_that_of_the_vectors(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one above the folder's own; not one that the model has no positions for."""
    short, corpus = tmp_path / "short", tmp_path / "corpus.parquet"
    embedder = Embedder.from_pretrained(model)
    embedder.max_length = 8
    embedder.save_pretrained(short)
    pq.write_table(pa.table({"id": ["1"], "text": ["a cat " * 20]}), corpus)
    assert embed(flags(short, corpus, tmp_path / "out", "--document_max_length", 16)) == 0
    assert embed(flags(short, corpus, tmp_path / "out")) == 2
    assert "max length" in capsys.readouterr().err
    found = pq.read_table(tmp_path / "out" / corpus.name)["vector"].to_pylist()[0]
    wanted = embedder.encode(["a cat " * 20], prompt="dog ", max_length=16)[0].tolist()
    assert found == pytest.approx(wanted, abs=1e-5)
    assert embed(flags(short, corpus, tmp_path / "far", "--document_max_length", 10_000)) == 2
    assert "max_length: 10000 tokens are asked for" in capsys.readouterr().err
