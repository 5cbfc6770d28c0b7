"""scripts/mine_negatives.py as a person runs it: files, a kill, one-line errors."""

import hashlib
import json
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders import Embedder, Reranker
from forked import Copy
from loaders import ReadOptions, load_rows
from mining.cache.vectors import read_part
from scripts.mine_negatives import main
from tiny import TEXTS

ROOT = Path(__file__).resolve().parents[2]
WORDS = [word for text in TEXTS for word in text.replace(",", "").split()]


def write(path: Path, rows: Iterable[object]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Queries that share a word with their documents, Chinese and English."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        words = rng.choices(WORDS, k=6)
        rows.append({"query": f"{words[0]} {number}", "pos_doc": f"{' '.join(words)} {number}"})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", pairs(120))


def command(data: Path, output: Path, *flags: object) -> list[str]:
    cache = ["--cache_dir", str(output.parent / "cache")]
    return ["--input", str(data), "--output", str(output), *cache, *map(str, flags)]


def run(data: Path, output: Path, *flags: object) -> list[dict[str, Any]]:
    assert main(command(data, output, *flags)) == 0
    return read(output)


def test_rows_keep_their_order_and_get_documents_of_others(
    data: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = run(data, tmp_path / "out.jsonl", "--embedder", tiny_bert, "--rank_range", 2, 60)
    rows = read(data)
    assert [(each["query"], each["pos"]) for each in groups] == [
        (row["query"], [row["pos_doc"]]) for row in rows
    ]
    documents = {row["pos_doc"] for row in rows}
    model = Embedder.from_pretrained(tiny_bert)
    texts = sorted(documents)
    vectors = model.encode(texts)
    for each in groups:
        assert list(each) == ["query", "pos", "neg"]
        assert len(set(each["neg"])) == 7
        assert set(each["neg"]) <= documents - set(each["pos"])
        # By rank, and of the ranks that were asked for.
        scores = (vectors @ model.encode([each["query"]])[0]).tolist()
        order = [texts[at] for at in np.argsort(-np.array(scores), kind="stable")]
        ranks = [order.index(text) + 1 for text in each["neg"]]
        assert min(ranks) >= 2 and max(ranks) <= 60
        assert ranks == sorted(ranks)
    printed = capsys.readouterr().out
    assert "840 negatives for 120 queries: 840 hard, 0 random (0.0%)" in printed
    assert "Hard negatives by rank" in printed
    assert rows[0]["query"] in printed  # an example
    assert load_rows(str(tmp_path / "out.jsonl"), "candidate_group", ReadOptions()).num_rows == 120


def test_the_settings_beside_the_output_say_how_it_was_made(
    data: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    run(data, output, "--embedder", tiny_bert, "--num_negatives", 10, "--random_share", 0.3)
    settings = json.loads((tmp_path / "out.jsonl.settings.json").read_text(encoding="utf-8"))
    assert settings["settings"]["random_share"] == 0.3
    assert settings["settings"]["embedder"] == str(tiny_bert)
    assert settings["files"] == {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (data, output)
    }
    assert set(settings["digests"]) == {"documents", "embedder"}
    assert settings["rows"] == 120
    assert (settings["summary"]["hard"], settings["summary"]["random"]) == (840, 360)
    assert sum(settings["summary"]["ranks"].values()) == 840


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    data: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    flags = ("--embedder", tiny_bert, "--random_share", 0.3)
    for name, more in (("a", []), ("b", []), ("c", ["--seed", 1])):
        run(data, tmp_path / f"{name}.jsonl", *flags, *more)
    one, same, other = ((tmp_path / f"{name}.jsonl").read_bytes() for name in "abc")
    assert one == same != other


def test_by_words_in_a_corpus(tmp_path: Path) -> None:
    corpus = [
        {"_id": "1", "title": "感冒", "text": "感冒发烧要多喝水"},
        {"_id": "2", "title": "", "text": "感冒不要吃抗生素"},
        {"_id": "3", "text": "发烧三天要看医生"},
        {"_id": "4", "text": "weather in Paris"},
    ]
    rows = [{"query": "感冒发烧怎么办", "pos": ["感冒 感冒发烧要多喝水"], "neg": []}]
    flags = ["--bm25", "--corpus", write(tmp_path / "corpus.jsonl", corpus), "--rank_range", 1, 9]
    data = write(tmp_path / "rows.jsonl", rows)
    (group,) = run(data, tmp_path / "out.jsonl", *flags, "--num_negatives", 2)
    assert sorted(group["neg"]) == ["发烧三天要看医生", "感冒不要吃抗生素"]
    # What has no word of the query is not found, and a random one is.
    (group,) = run(
        data, tmp_path / "random.jsonl", *flags, "--num_negatives", 2, "--random_share", 0.5,
        "--random_from", 3,
    )  # fmt: skip
    assert group["neg"][1] == "weather in Paris"


def test_negatives_that_are_there_are_kept_or_replaced(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"query": row["query"], "pos": [row["pos_doc"]], "neg": [f"old {at}"], "prompt": "找 "}
        for at, row in enumerate(pairs(30))
    ]
    data = write(tmp_path / "rows.jsonl", rows)
    kept = run(data, tmp_path / "kept.jsonl", "--embedder", tiny_bert)
    assert [each["neg"][0] for each in kept] == [f"old {at}" for at in range(30)]
    assert all(len(set(each["neg"])) == 8 and each["prompt"] == "找 " for each in kept)
    assert "lost" not in caplog.text
    new = run(data, tmp_path / "new.jsonl", "--embedder", tiny_bert, "--existing", "replace")
    assert all(len(each["neg"]) == 7 for each in new)
    assert "lost: 30 negatives, replaced" in caplog.text


def test_a_query_with_too_few_is_kept_and_counted(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "rows.jsonl", pairs(5))
    groups = run(data, tmp_path / "out.jsonl", "--embedder", tiny_bert)
    assert len(groups) == 5
    assert all(len(each["neg"]) <= 4 for each in groups)
    printed = " ".join(capsys.readouterr().out.split())
    assert "5 queries got fewer negatives than asked for, and are kept with those" in printed


def test_graded_rows_keep_their_relevances(
    tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"query": "cat", "doc": "a cat sat", "rel": 1},
        {"query": "cat", "doc": "a dog", "rel": 0.25},
        {"query": "天气", "doc": "今天天气", "rel": 0.75},
        {"query": "猫", "doc": "狗", "rel": 0.1},
    ]
    flags = ("--embedder", tiny_bert, "--num_negatives", 1, "--rank_range", 1, 9)
    groups = run(write(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl", *flags)
    assert [(each["pos"], each["pos_scores"]) for each in groups] == [
        (["a cat sat"], [1]), (["今天天气"], [0.75]), ([], []),
    ]  # fmt: skip
    assert groups[0]["neg"][0] == "a dog" and groups[0]["neg_scores"] == [0.25, 0]
    assert groups[2]["neg"] == ["狗"] and groups[2]["neg_scores"] == [0.1]
    assert "are relevances, 0 for mined negatives" in caplog.text
    assert '"relevance_from_scores": true, "positive_threshold": 0.5' in caplog.text
    options = ReadOptions(relevance_from_scores=True)
    assert load_rows(str(tmp_path / "out.jsonl"), "candidate_group", options)[0]["graded"]


def test_a_reranker_writes_its_scores(
    data: Path, tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    flags = ("--embedder", tiny_bert, "--reranker", tiny_classifier)
    reranker = Reranker.from_pretrained(tiny_classifier)
    for scale in ("raw", "sigmoid"):
        groups = run(data, tmp_path / f"{scale}.jsonl", *flags, "--scores", scale)[:20]
        documents = [each["pos"] + each["neg"] for each in groups]
        asked = [
            (each["query"], text)
            for each, texts in zip(groups, documents, strict=True)
            for text in texts
        ]
        expected = reranker.score(asked, raw=scale == "raw").tolist()
        got = [score for each in groups for score in each["pos_scores"] + each["neg_scores"]]
        assert got == pytest.approx(expected, abs=2e-5)


def test_what_the_reranker_takes_for_an_answer_becomes_a_positive(
    data: Path, tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    """Mined documents and negatives of the rows; as many negatives as without are found."""
    rows = [{"query": row["query"], "pos": [row["pos_doc"]], "neg": []} for row in pairs(120)]
    for at, row in enumerate(rows):
        row["neg"] = [rows[at - 1]["pos"][0]]
    data = write(tmp_path / "rows.jsonl", rows)
    flags = ("--embedder", tiny_bert, "--reranker", tiny_classifier, "--scores", "sigmoid")
    before = run(data, tmp_path / "before.jsonl", *flags)
    scores = sorted({score for row in before for score in row["neg_scores"]})
    high = len(scores) * 9 // 10
    lowest = sum(scores[high : high + 2]) / 2  # between two, as what is written is rounded
    found = run(data, tmp_path / "after.jsonl", *flags, "--relabel_from", lowest)
    settings = json.loads((tmp_path / "after.jsonl.settings.json").read_text(encoding="utf-8"))
    counted = settings["summary"]["removed"]["answer by the reranker: now a positive"]
    mined, of_rows = 0, 0
    for row, old, new in zip(rows, before, found, strict=True):
        assert new["pos"][0] == row["pos"][0]
        was_negative = old["neg_scores"][0] >= lowest
        assert (row["neg"][0] in new["pos"]) == was_negative
        assert (row["neg"][0] in new["neg"]) == (not was_negative)
        assert len(new["neg"]) == 7 + (not was_negative)
        assert max(new["neg_scores"]) < lowest <= min([*new["pos_scores"][1:], 1])
        assert len(set(new["pos"] + new["neg"])) == len(new["pos"] + new["neg"])
        of_rows += was_negative
        mined += len(new["pos"]) - 1 - was_negative
    assert mined == counted > 0
    assert of_rows > 0
    assert load_rows(str(tmp_path / "after.jsonl"), "candidate_group", ReadOptions())


# A kill


@pytest.mark.slow
def test_killed_and_started_again(tiny_bert: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "rows.jsonl", pairs(1_600))
    flags = ["--embedder", tiny_bert, "--random_share", 0.3, "--rank_range", 2, 20]
    output = tmp_path / "killed" / "out.jsonl"
    output.parent.mkdir()
    child = Copy(["scripts/mine_negatives.py", *command(data, output, *flags)])
    vectors = output.parent / "cache" / "vectors"
    while not any(file.stat().st_size for file in vectors.glob("*/*.keys")):
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))  # at a random moment
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not output.exists()
    killed = encoded(vectors)
    assert 0 < killed <= 3_200
    assert main(command(data, output, *flags)) == 0
    # Nothing was encoded twice: there are as many vectors as texts.
    assert encoded(vectors) == 3_200
    run(data, tmp_path / "whole.jsonl", *flags)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert list((output.parent / "cache" / "runs").iterdir()) == []


def encoded(vectors: Path) -> int:
    return sum(len(read_part(keys, 32).keys) for keys in vectors.glob("*/*.keys"))


# One clear line


def error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "embedder: give either --embedder MODEL or --bm25"),
        (("--bm25", "--embedder", "x"), "embedder: give either --embedder MODEL or --bm25"),
        (("--bm25", "--index", "ivf"), "index: is for --embedder; leave it out"),
        (("--bm25", "--query_prompt", "x"), "query_prompt: is for --embedder; leave it out"),
        (
            ("--bm25", "--reranker_max_score", "0.5"),
            "reranker_max_score: is for --reranker; leave it out",
        ),
        (
            ("--bm25", "--relabel_from", "0.9"),
            "error: relabel_from: is for --reranker; leave it out",
        ),
        (
            ("--bm25", "--reranker", "x", "--relabel_from", "1"),
            "error: relabel_from: must be above 0 and below 1, got 1",
        ),
        (
            ("--bm25", "--reranker", "x", "--reranker_absolute_margin=-1"),
            "error: reranker_absolute_margin: must be at least 0, got -1",
        ),
        (
            ("--bm25", "--rank_range", "9", "2"),
            "rank_range: must be two ranks in rising order, from 1, got 9 2",
        ),
        (("--bm25", "--rank_range", "0", "2"), "rank_range: must be at least 1, got 0"),
        (("--bm25", "--rank_range", "2"), "rank_range: [2] is not a list of 2"),
        (("--bm25", "--rank_range", "500", "600"), "rank_range: the corpus has 120 distinct"),
        (
            ("--bm25", "--random_share", "0.3", "--random_from", "120"),
            "random_from: the corpus has 120 distinct documents, none of a rank above 120",
        ),
        (("--bm25", "--corpus", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--embedder", "nowhere/at/all"), "is neither a folder here nor a name on the Hub"),
        (("--bm25", "--rank", "2"), "rank: unknown key; did you mean reranker?"),
    ],
)
def test_mistakes(
    flags: tuple[str, ...],
    message: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in error(capsys, command(data, tmp_path / "out.jsonl", *flags))
    assert not (tmp_path / "out.jsonl").exists()


def test_models_of_the_wrong_kind(
    data: Path,
    tiny_bert: Path,
    tiny_classifier: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out.jsonl"
    line = error(capsys, command(data, output, "--embedder", tiny_classifier))
    assert "is a reranker; give an embedder" in line
    line = error(capsys, command(data, output, "--bm25", "--reranker", tiny_bert))
    assert "is not a reranker" in line


def test_outputs_that_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.jsonl").touch()
    line = error(capsys, command(data, tmp_path / "there.jsonl", "--bm25"))
    assert "add --overwrite to replace it" in line
    line = error(capsys, command(data, tmp_path / "table.tsv", "--bm25"))
    assert "groups hold lists; give .jsonl, .json or .parquet" in line


# Real text


@pytest.mark.realdata
def test_scifact_by_words(realdata: Callable[[str], Path], tmp_path: Path) -> None:
    folder = realdata("scifact")
    documents = {
        row["_id"]: f"{row['title']} {row['text']}".strip() for row in read(folder / "corpus.jsonl")
    }
    queries = {row["_id"]: row["text"] for row in read(folder / "queries.jsonl")}
    answers: dict[str, list[str]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, _ = line.split("\t")
        answers.setdefault(query, []).append(documents[document])
    rows = [{"query": queries[query], "pos": pos} for query, pos in answers.items()]
    data = write(tmp_path / "rows.jsonl", rows)
    groups = run(data, tmp_path / "out.jsonl", "--bm25", "--corpus", folder, "--num_negatives", 4)
    assert len(groups) == len(rows) == 300
    assert all(len(each["neg"]) == 4 for each in groups)
    assert all(set(each["neg"]).isdisjoint(each["pos"]) for each in groups)
    assert {text for each in groups for text in each["neg"]} <= set(documents.values())
