"""The Arrow cache: reused, renewed when anything changes, shared by processes, small in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from evaluation.data.resolve import open_data
from loaders import DataFiles, ReadOptions, load_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tandem"


def write(path: Path, docs: list[str]) -> None:
    rows = ({"query": "问", "doc": doc, "rel": 1} for doc in docs)
    path.write_text("\n".join(map(json.dumps, rows)))


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def test_reused_and_renewed(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, ["a", "b"])
    load_rows(str(path), "scored_pair", ReadOptions())
    (folder,) = folders(cache)
    built = (folder / "rows.arrow").stat().st_mtime_ns
    assert load_rows(str(path), "scored_pair", ReadOptions())["doc"] == ["a", "b"]
    load_rows(str(path), "scored_pair", ReadOptions(rejected_file=tmp_path / "r"))
    assert folders(cache) == [folder]
    assert (folder / "rows.arrow").stat().st_mtime_ns == built

    before = path.stat()
    write(path, ["a", "c"])  # the same size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_rows(str(path), "scored_pair", ReadOptions())["doc"] == ["a", "c"]
    assert len(folders(cache)) == 2
    load_rows(str(path), "scored_pair", ReadOptions(label_range=(0, 2)))
    load_rows(str(path), "candidate_group", ReadOptions())
    assert len(folders(cache)) == 4


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.jsonl", ["a"])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "a.jsonl"))
    with pytest.raises(ValueError, match="cannot be written"):
        load_rows(str(tmp_path / "a.jsonl"), "scored_pair", ReadOptions())


def test_a_file_of_bad_rows_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a.jsonl").write_text('{"query": "a"}\n')
    options = ReadOptions(rejected_file=tmp_path / "link" / "bad.jsonl")
    with pytest.raises(ValueError, match=r"rejected_file: .* cannot be written: \[Errno"):
        load_rows(str(tmp_path / "a.jsonl"), "scored_pair", options)


def test_one_reading_serves_the_loss_and_the_metrics(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Positive pairs and groups are one copy, queries without a positive are in the groups only."""
    path = tmp_path / "a.jsonl"
    pairs = [("q", "a", 1), ("r", "b", 0.2), ("q", "c", 0), ("s", "d", 0.9), ("q", "e", 1)]
    records = [{"query": query, "doc": doc, "rel": rel} for query, doc, rel in pairs]
    path.write_text("\n".join(map(json.dumps, records)))
    options = ReadOptions(evaluates=True)
    files = DataFiles(str(path), options)
    assert files.choose_shape(["positive_pair"]) == "positive_pair"
    assert files.choose_shape(["candidate_group", "scored_pair"]) == "scored_pair"
    rows = files.rows("positive_pair")
    assert [(row["query"], row["pos_doc"]) for row in (rows[at] for at in range(3))] == [
        ("q", "a"),
        ("q", "e"),
        ("s", "d"),
    ]
    data = open_data([str(path)], "embedder", options, as_groups=True)
    assert len(folders(cache)) == 1
    assert len(data.queries) == 3
    for _ in range(2):
        files.rows("candidate_group")
    told = [message for message in caplog.messages if "only; losses" in message]
    assert len(told) == 2  # once by each of the two readers of groups


def test_a_failed_reading_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, ["a", ""])
    with pytest.raises(ValueError, match='"doc" is empty'):
        load_rows(str(path), "scored_pair", ReadOptions())
    assert folders(cache) == []


def run(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def test_processes_share_one_reading(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [f"文档 {i}" for i in range(20_000)])
    code = (
        "import sys, json\n"
        "from loaders import ReadOptions, load_rows\n"
        "rows = load_rows(sys.argv[1], 'candidate_group', ReadOptions())\n"
        "print(json.dumps([len(rows), len(rows[0]['pos'])]))\n"
    )
    path, home = str(tmp_path / "a.jsonl"), str(tmp_path / "shared")
    processes = [run(code, path, HF_DATASETS_CACHE=home) for _ in range(2)]
    assert [result(process) for process in processes] == [[1, 20_000]] * 2
    assert len(folders(tmp_path / "shared" / "tandem")) == 1


def test_a_long_json_array_needs_little_memory(tmp_path: Path) -> None:
    count, text = 100_000, "一段不太短的文本 with some English in it. " * 5
    with (tmp_path / "a.json").open("w", encoding="utf-8") as stream:
        for i in range(count):
            row = {"query": f"问 {i // 4}", "doc": f"{i} {text}", "rel": i % 2}
            stream.write(("[" if i == 0 else ",\n") + json.dumps(row, ensure_ascii=False))
        stream.write("]")
    size = (tmp_path / "a.json").stat().st_size
    code = (
        "import sys, json, resource\n"
        "from loaders import ReadOptions, load_rows\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "rows = load_rows(sys.argv[1], 'scored_pair', ReadOptions())\n"
        "print(json.dumps([len(rows), rows[99999]['query'], (peak() - before) * 1024]))\n"
    )
    home = str(tmp_path / "shared")
    rows, query, memory = result(run(code, str(tmp_path / "a.json"), HF_DATASETS_CACHE=home))
    assert (rows, query) == (count, f"问 {(count - 1) // 4}")
    assert memory < size / 2, (memory, size)
