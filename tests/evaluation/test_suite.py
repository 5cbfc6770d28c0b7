"""evaluate.py --suite: every task as by itself, the mean, and what a second call does again."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoders import MultiVectorEncoder
from evaluation.data.mteb_task import SUITES
from evaluation.metrics.comparison import Comparison
from evaluation.results import MetricResult, Results
from evaluation.settings import EvaluateSettings
from evaluation.suite import mean_of, read_suite
from forked import together
from runs import WORDS, write_set
from scripts import evaluate
from tiny import save_backbone, save_classifier
from zoo import change_json


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A file that lists three folders."""
    parts = (WORDS, WORDS[:5], WORDS[3:11])
    folders = [write_set(tmp_path / f"set {n}", own) for n, own in enumerate(parts)]
    file = tmp_path / "suite.txt"
    file.write_text("\n".join(map(str, folders)) + "\n", encoding="utf-8")
    return file


def run(*flags: object) -> int:
    return evaluate.main([str(flag) for flag in flags])


def content(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def test_every_task_is_as_by_itself_and_the_mean_is_theirs(
    listed: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_backbone(tmp_path / "other", seed=1)
    models = ["--model", tiny_bert, "--baseline", other]
    assert run("--suite", listed, *models, "--output_dir", tmp_path / "all") == 0
    shown = capsys.readouterr().out
    values: dict[str, list[float]] = {"fine-tuned": [], "base": [], "difference": []}
    for number in range(3):
        alone = tmp_path / f"alone{number}"
        assert run("--data", tmp_path / f"set {number}", *models, "--output_dir", alone) == 0
        expected = content(alone / "evaluation.json")
        (folder,) = (tmp_path / "all").glob(f"*set_{number}")
        found = content(folder / "evaluation.json")
        assert found["metrics"] == expected["metrics"]
        assert (folder / "report.html").is_file() and (folder / "run.trec").is_file()
        for name, own in values.items():
            own.append(found["metrics"]["ndcg@10"][name])
    mean = content(tmp_path / "all" / "suite.json")["mean"]
    for name, own in values.items():
        assert mean[name] == pytest.approx(np.mean(own), abs=1e-12)
        assert f"{mean[name]:.4f}" in shown
    assert mean["low"] < mean["difference"] < mean["high"]


def test_only_what_is_missing_or_of_another_model_is_measured(
    listed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, output = save_backbone(tmp_path / "model"), tmp_path / "all"
    listed.write_text(f"{tmp_path}/set 1\n{tmp_path}/set 2\n")
    measured: list[str] = []
    measure = evaluate.measure

    def noted(args: EvaluateSettings, shared_settings: bool) -> Any:
        measured.append(args.data[0].rpartition(" ")[2])
        return measure(args, shared_settings)

    monkeypatch.setattr(evaluate, "measure", noted)
    flags = ["--suite", listed, "--model", model, "--output_dir", output]

    def again(*more: object) -> list[str]:
        measured.clear()
        assert run(*flags, *more) == 0
        return list(measured)

    shutil.copy(tmp_path / "set 2" / "qrels" / "test.tsv", tmp_path / "qrels")
    assert again() == ["1", "2"]
    first = (output / "suite.json").read_bytes()
    capsys.readouterr()
    assert again("--language", "zh") == []
    assert f"retrieval on {tmp_path}/set 1: " in capsys.readouterr().out
    (killed,) = output.glob("*set_1")
    (killed / "measured.json").write_text('{"identity": {')
    assert again() == ["1"]
    assert (output / "suite.json").read_bytes() == first
    assert again("--query_max_length", "8") == ["1", "2"]
    corpus = tmp_path / "set 1" / "corpus.jsonl"
    corpus.write_text(corpus.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert again("--query_max_length", "8") == ["1"]
    (judged := tmp_path / "set 2" / "qrels" / "test.tsv").write_text("query-id corpus-id score\n")
    assert run(*flags) == 2 and not (output / "suite.json").exists()
    shutil.copy(tmp_path / "qrels", judged)
    # The name is the same, the weights are not.
    shutil.rmtree(model)
    save_backbone(model, seed=4)
    assert again("--query_max_length", "8") == ["1", "2"]


def test_machines_without_a_common_folder_measure_the_same_tasks(
    listed: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    flags = ["--suite", listed, "--model", tiny_bert]
    assert run(*flags, "--output_dir", tmp_path / "home0" / "all") == 0
    shutil.rmtree(next((tmp_path / "home0" / "all").glob("*set_1")))
    command = ["scripts/evaluate.py", *flags, "--output_dir=~/all"]
    assert "the mean is in" in together(2, command, HOME=f"{tmp_path}/home{{rank}}")
    assert not (tmp_path / "home1").exists()


def test_a_changed_corpus_is_measured_anew(tiny_bert: Path, tmp_path: Path) -> None:
    rows, corpus, suite = (tmp_path / name for name in ("rows.jsonl", "corpus.jsonl", "suite.txt"))
    rows.write_text("".join(f'{{"query": "{word}", "pos_doc": "a {word}"}}\n' for word in WORDS))
    suite.write_text(f"{rows}\n")
    flags = ["--suite", suite, "--model", tiny_bert, "--corpus", corpus]
    counts = []
    for more in (1, 3):
        corpus.write_text("".join(f'{{"_id": "{n}", "text": "m {n}"}}\n' for n in range(more)))
        assert run(*flags, "--output_dir", tmp_path / "all") == 0
        (found,) = (tmp_path / "all").glob("*/evaluation.json")
        counts.append(content(found)["documents"] - len(WORDS))
    assert counts == [1, 3]


def test_a_reranker_is_measured_on_its_first_stage(
    listed: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    reranker = save_classifier(tmp_path / "reranker")
    listed.write_text(f"{tmp_path}/set 1\n")
    flags = ["--suite", listed, "--model", reranker, "--top_k", 3, "--output_dir", tmp_path / "all"]
    assert run(*flags) == 0
    by_words = content(tmp_path / "all" / "suite.json")
    assert run(*flags, "--first_stage", tiny_bert) == 0
    assert content(tmp_path / "all" / "suite.json") != by_words


def test_a_model_that_cuts_its_documents_earlier_is_measured_anew(
    listed: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    MultiVectorEncoder.from_pretrained(tiny_bert).save_pretrained(model)
    listed.write_text(f"{tmp_path}/set 1\n")
    scores = []
    for length in (20, 4):
        change_json(model / "sentence_bert_config.json", document_length=length)
        assert run("--suite", listed, "--model", model, "--output_dir", tmp_path / "all") == 0
        (found,) = (tmp_path / "all").glob("*/run.trec")
        scores.append(found.read_text())
    assert scores[0] != scores[1]


def results(value: float, by: Comparison | None = None, **changes: Any) -> Results:
    return Results(
        kind="embedder",
        data="set",
        split="test",
        models={},
        task="retrieval",
        created="",
        counts={},
        main_metric="m",
        metrics={"m": MetricResult({"fine-tuned": value}, by, **changes)},
    )


def test_the_interval_of_the_mean_is_that_of_queries_drawn_anew() -> None:
    """Against a bootstrap that draws the queries of every task anew, each from its own."""
    random = np.random.default_rng(0)
    tasks = [random.normal(0.02, spread, 300) for spread in (0.1, 0.3, 0.2)]
    weights = [0.5, 0.25, 0.25]
    found = []
    for own in tasks:
        half = 1.96 * own.std() / len(own) ** 0.5
        by = Comparison(0.5, 0.5, own.mean(), own.mean() - half, own.mean() + half, 0.5)
        found.append(results(0.5, by))
    mean = mean_of(found, weights, "m")
    drawn = [
        sum(w * random.choice(own, len(own)).mean() for w, own in zip(weights, tasks, strict=True))
        for _ in range(4000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert mean["low"] == pytest.approx(low, abs=0.1 * (high - low))
    assert mean["high"] == pytest.approx(high, abs=0.1 * (high - low))


def test_an_undefined_metric_has_no_mean() -> None:
    with pytest.raises(ValueError, match="m is undefined on set: no relevant document"):
        mean_of([results(0.0, undefined="no relevant document")], [1], "m")


def test_the_suites_of_mteb() -> None:
    """Named without the network; CQADupstack's twelve parts count as one task of BEIR."""
    pytest.importorskip("mteb")
    found = {name: read_suite(name) for name in SUITES}
    assert {name: len(tasks) for name, tasks in found.items()} == {
        "nanobeir": 13,
        "beir": 14 + 12,
        "c-mteb-retrieval": 8,
        "miracl": 18,
    }
    for tasks in found.values():
        assert sum(task.weight for task in tasks) == pytest.approx(1)
        assert all(task.data.startswith("mteb:") for task in tasks)
    parts = [task.weight for task in found["beir"] if "CQADupstack" in task.data]
    assert parts == [pytest.approx(1 / 15 / 12)] * 12
    assert "mteb:T2Retrieval" in {task.data for task in found["c-mteb-retrieval"]}
    assert "mteb:MIRACLRetrievalHardNegatives/zh" in {task.data for task in found["miracl"]}


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ("nanobier", "'nanobier' is neither a file nor one of nanobeir, beir"),
        ("\n", "names no task"),
        ("a\nb\na\n", "names a more than once"),
        ("a/b\na_b\n", "a/b and a_b would have their results in one folder"),
        (".", "the folder of . has no name; give its whole path"),
        ("../a\na", "../a and a would have their results in one folder"),
        ("[1]", "must be a list of texts"),
        ("[", "is not JSON"),
        ("数据".encode("gb18030").decode("latin1"), "is not in UTF-8 but probably in GB18030"),
    ],
)
def test_wrong_suites(
    suite: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = suite
    if suite != "nanobier":
        name = str(tmp_path / "suite.txt")
        Path(name).write_text(suite, encoding="latin1")
    assert run("--suite", name, "--model", "m", "--output_dir", tmp_path / "all") == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "m"], "data: give either data or a suite"),
        (["--model", "m", "--suite", "beir", "--data", "x"], "data: give either data or a suite"),
        (["--model", "m", "--suite", "beir"], "suite: keeps results in output_dir; give --model"),
        (
            ["--model", "m", "--suite", "beir", "--output_dir", "o", "--store", "s"],
            "suite: has no effect with --store; leave one out",
        ),
        (
            ["--model", "m", "--data", "x", "--collection", "mine"],
            "collection: is of a store; give --store",
        ),
    ],
)
def test_wrong_flags(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*flags) == 2
    assert message in capsys.readouterr().err
