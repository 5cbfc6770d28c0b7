"""Fuzz the reading of BEIR folders, one corrupted file each, for ``benchmarks/fuzzing/fuzz.py``."""

import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fuzzing.hostile import Mutator
from evaluation import read_beir
from loaders import ReadOptions
from loaders.beir.evaluation_set import find_splits, read_corpus, read_set
from mining.data.documents import corpus_documents

DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "d1", "title": "Paris", "text": "the capital of France"},
    {"_id": "d2", "title": "", "text": "猫坐在垫子上"},
    {"_id": "d 3", "title": "only a title", "text": None},
]
QUERIES = [{"_id": "q1", "text": "capital?"}, {"_id": "d2", "text": "猫"}]
JUDGED = [("q1", "d1", 1), ("q1", "d 3", -2), ("d2", "d2", 0), ("d2", "d1", 2)]
HEADERS = ["", "query-id\tcorpus-id\tscore\n", "qid\tdocid\trel\n", "corpus_id\tquery_id\tlabel\n"]


def seeds() -> dict[str, list[bytes]]:
    """Good files by their names in the folder."""
    corpus, queries = (lines(records) for records in (DOCUMENTS, QUERIES))
    plain = "\n".join(f"{q}\t{d}\t{grade}" for q, d, grade in JUDGED)
    turned = "\n".join(f"{d}\t{q}\t{grade}" for q, d, grade in JUDGED)
    trec = "\n".join(f"{q} 0 {d} {grade}" for q, d, grade in JUDGED if " " not in d)
    records = [{"query-id": q, "corpus-id": d, "score": grade} for q, d, grade in JUDGED]
    tables = [f"{header}{plain}" for header in HEADERS[:3]] + [HEADERS[3] + turned, trec]
    return {
        "corpus.jsonl": [corpus, corpus.replace(b"_id", b"docid"), json.dumps(DOCUMENTS).encode()],
        "corpus.jsonl.gz": [gzip.compress(corpus, mtime=0)],
        "corpus.parquet": [table(DOCUMENTS)],
        "queries.jsonl": [queries, queries.replace(b"_id", b"qid").replace(b"text", b"query")],
        "qrels/test.tsv": [text.encode() for text in tables],
        "qrels/test.tsv.gz": [gzip.compress(plain.encode(), mtime=0)],
        "qrels/test.jsonl": [lines(records)],
        "qrels/test.parquet": [table(records)],
    }


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def table(records: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), stream)
    return stream.getvalue()


def read_folder(scratch: Path) -> Callable[[str, bytes], None]:
    """Read a folder as every script does; what is read twice must be the same."""
    good = {name: found[0] for name, found in seeds().items() if name.endswith((".jsonl", ".tsv"))}
    del good["qrels/test.jsonl"]

    def target(name: str, data: bytes) -> None:
        folder = scratch / "set"
        shutil.rmtree(folder, ignore_errors=True)
        part = name.partition(".")[0]
        for other, content in {**good, name: data}.items():
            if other == name or other.partition(".")[0] != part:
                (folder / other).parent.mkdir(parents=True, exist_ok=True)
                (folder / other).write_bytes(content)
        allow = len(data) % 2 == 0
        measured = read_beir(folder, "test", allow_unknown=allow)
        texts = [*measured.documents.items(), *measured.queries.items()]
        assert all(
            piece.encode() is not None and "\0" not in piece for pair in texts for piece in pair
        )
        assert read_corpus(folder) == measured.documents
        mined = {d.id: d.text for d in corpus_documents([str(folder)], ReadOptions())}
        assert mined == measured.documents
        made = read_set(folder, find_splits(folder), allow_unknown=allow, for_training=True)
        assert made.qrels["test"] == measured.qrels
        assert made.documents.items() <= measured.documents.items()

    return target


def fuzz_folders(campaign: Any) -> None:
    """Good folders, and folders with one file changed, until the time is over."""
    draw, mutator = random.Random(campaign.args.seed), Mutator(campaign.args.seed)
    target, files = read_folder(campaign.scratch), seeds()
    for name, found in files.items():
        for data in found:
            campaign.put(name, data, target)
    while not campaign.over():
        name = draw.choice(list(files))
        campaign.put(name, mutator.change(draw.choice(files[name])), target)
