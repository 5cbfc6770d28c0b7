"""scripts/prepare_data.py as a person runs it, on a small source tree and for the sample."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from preparation.commands.docstrings import FILES as DOCSTRING_FILES
from preparation.commands.sample import FILES as SAMPLE_FILES
from preparation.docstrings.corpus import NEAR_DUPLICATE
from preparation.duplicates.near_duplicates import similar_pairs
from scripts.prepare_data import main

ROOT = Path(__file__).resolve().parents[3]
SIZES = ["--heldout_size", "10", "--dev_size", "5", "--num_negatives", "3"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve modules of five functions, which fail when imported, and one that is no Python."""
    folder = tmp_path_factory.mktemp("source") / "kites"
    folder.mkdir()
    rng = random.Random(0)
    words = ["".join(rng.choices("bdfgklmnprst", k=3)) + "a" * (n % 3 + 1) for n in range(400)]
    for module in range(12):
        lines = ["raise SystemExit('executed')"]
        for function in range(5):
            one, two, three = rng.sample(words, 3)
            rest = " ".join(rng.sample(words, 30))
            summary = f"Weigh {one} and {two} beside {three} carefully."
            lines += [
                f"def f{function}():",
                f'    """{summary}',
                "",
                f'    About {one}: {rest}."""',
            ]
        (folder / f"m{module}.py").write_text("\n".join(lines), encoding="utf-8")
    # A copy of a module under another name must not leak across the split.
    (folder / "copy.py").write_bytes((folder / "m3.py").read_bytes())
    (folder / "broken.py").write_text("def broken(:", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output_dir = tmp_path_factory.mktemp("made") / "docstrings"
    command = ["docstrings", "--output_dir", str(output_dir), "--source", str(source), *SIZES]
    assert main(command) == 0
    return output_dir


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_files_agree_with_each_other(made: Path) -> None:
    files = {str(file.relative_to(made)) for file in made.rglob("*") if file.is_file()}
    assert files == set(DOCSTRING_FILES)
    pairs, groups = read(made / "train_pairs.jsonl"), read(made / "train_groups.jsonl")
    assert len(pairs) == 45
    assert pairs == [{"query": g["query"], "pos_doc": g["pos"][0]} for g in groups]
    assert all(len(g["pos"]) == 1 and len(g["neg"]) == 3 for g in groups)
    assert read(made / "train_scored.jsonl") == [
        {"query": g["query"], "doc": doc, "rel": rel, "weight": 1.0}
        for g in groups
        for doc, rel in [(g["pos"][0], 1.0), *((doc, 0.0) for doc in g["neg"])]
    ]
    assert len(read(made / "dev_pairs.jsonl")) == len(read(made / "dev_groups.jsonl")) == 5


def test_the_held_out_set_is_in_beir_layout(made: Path) -> None:
    corpus = {row["_id"]: row for row in read(made / "heldout" / "corpus.jsonl")}
    queries = {row["_id"]: row for row in read(made / "heldout" / "queries.jsonl")}
    text = (made / "heldout" / "qrels" / "test.tsv").read_text(encoding="utf-8")
    header, *lines = text.splitlines()
    assert header == "query-id\tcorpus-id\tscore"
    assert len(lines) == len(corpus) == len(queries) == 10
    for line in lines:
        query, document, score = line.split("\t")
        assert score == "1" and query != document
        word = queries[query]["text"].split()[1]
        assert corpus[document]["text"].startswith(f"About {word}: ")
        assert corpus[document]["title"] == ""


def test_nothing_leaks_and_no_negative_is_the_positive(made: Path) -> None:
    train, dev = read(made / "train_groups.jsonl"), read(made / "dev_groups.jsonl")
    heldout = [row["text"] for row in read(made / "heldout" / "corpus.jsonl")]
    documents = [group["pos"][0] for group in (*train, *dev)] + heldout
    assert len(documents) == 60  # the copied module is gone
    assert not list(similar_pairs(documents, NEAR_DUPLICATE))
    for part in (train, dev):
        positives = {group["pos"][0] for group in part}
        for group in part:
            assert set(group["neg"]) <= positives - set(group["pos"])
    queries = [group["query"] for group in (*train, *dev)]
    queries += [row["text"] for row in read(made / "heldout" / "queries.jsonl")]
    assert len(set(queries)) == 60


def test_a_second_process_writes_the_same_bytes(source: Path, made: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "prepare_data.py"), "docstrings"]
    options = ["--output_dir", str(tmp_path / "again"), "--source", str(source), *SIZES]
    run = subprocess.run(
        [*script, *options], capture_output=True, encoding="utf-8", cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "PATH": ""}, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    for name in DOCSTRING_FILES:
        assert (tmp_path / "again" / name).read_bytes() == (made / name).read_bytes(), name
    total = next(line for line in run.stdout.splitlines() if line.startswith("total"))
    assert total.split() == ["total", "45", "5", "10"]
    assert "1 source file that cannot be read or parsed" in run.stdout
    assert "5 summary used before" in run.stdout
    assert "reading source files" in run.stderr


def test_another_seed_holds_out_other_modules(source: Path, made: Path, tmp_path: Path) -> None:
    options = ["--output_dir", str(tmp_path), "--source", str(source), *SIZES, "--seed", "1"]
    assert main(["docstrings", *options]) == 0
    name = "heldout/corpus.jsonl"
    assert {row["_id"] for row in read(tmp_path / name)} != {r["_id"] for r in read(made / name)}


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("rows", [50, 73, 100, 101, 150, 200])
def test_sample(language: str, rows: int, tmp_path: Path) -> None:
    options = ["--output_dir", str(tmp_path), "--language", language, "--rows", str(rows)]
    assert main(["sample", *options]) == 0
    parts = [json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in SAMPLE_FILES]
    everything = [row for part in parts for row in part]
    assert len(everything) == len({row["key"] for row in everything}) == rows
    assert len({(row["query"], row["doc"]) for row in everything}) == rows
    if rows in (50, 100, 200):
        assert [len(part) for part in parts] == [rows * 3 // 5, rows // 5, rows // 5]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        for field in ("query", "doc"):
            assert not {r[field] for r in parts[one]} & {r[field] for r in parts[other]}
    assert {(row["rel"], row["weight"]) for row in everything} == {
        (1.0, 1.0),
        (0.6, 1.0),
        (0.2, 1.0),
        (0.0, 0.5),
    }
    is_chinese = [any("\u4e00" <= letter <= "\u9fff" for letter in r["doc"]) for r in everything]
    assert all(is_chinese) if language == "zh" else not any(is_chinese)


def test_files_that_are_there_are_kept_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["sample", "--output_dir", str(tmp_path), "--language", "zh"]
    assert main(options) == 0
    first = (tmp_path / "train_data.json").read_bytes()
    assert main([*options, "--seed", "3"]) == 2
    assert "already holds train_data.json; add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "train_data.json").read_bytes() == first
    assert main([*options, "--seed", "3", "--overwrite"]) == 0
    assert (tmp_path / "train_data.json").read_bytes() != first
    assert main([*options, "--overwrite"]) == 0
    assert (tmp_path / "train_data.json").read_bytes() == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sample", "--language", "zh", "--rows", "10"], "rows: must be from 50 to 200, got 10"),
        (["docstrings", "--packages", "no_such_package"], "no_such_package is not installed"),
        (["docstrings", "--packages", "os.path"], "not the name of a top-level package"),
        (["docstrings", "--source", "no/such/folder"], "no/such/folder is not a folder"),
        (["docstrings", "--source", str(Path(__file__).parents[3] / "configs")], "only 0 pairs"),
        (["docstrings", "--packages", "tqdm"], "read more packages or ask for less"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--output_dir", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().replace("\r", "\n").splitlines()
    assert message in lines[-1] and "Traceback" not in "".join(lines)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "a command is missing; give one of docstrings, sample, "),
        (["convrt"], "convrt: unknown command; did you mean convert?"),
    ],
)
def test_wrong_flags_exit_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_the_output_folder_may_not_be_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["sample", "--language", "en", "--output_dir", str(tmp_path / "file")]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
