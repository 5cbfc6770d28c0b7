"""scripts/evaluate.py from the command line's point of view."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from scipy.stats import spearmanr

from common.run_files import BEST_FILE, RUN_FILE
from encoders import Embedder, Reranker
from evaluation.data.resolve import read_beir
from evaluation.data.trec import read_run
from evaluation.metrics.ranking import DEFAULT_METRICS, per_query
from evaluation.search.retrieval import retrieve
from forked import Copy
from runs import TOPICS, losses, train, write_format, write_set
from scripts.evaluate import main
from tiny import save_backbone, save_classifier
from trainers.model_card.evaluation import SECTION


@pytest.fixture(scope="module")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve documents, each the answer to one query; Chinese and English."""
    return write_set(tmp_path_factory.mktemp("heldout") / "set")


def evaluated(*flags: object) -> None:
    assert main([str(flag) for flag in flags]) == 0


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return found


def test_an_embedder_against_another(
    heldout: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures are those of the library; the run, the report and the table tell the same."""
    other = save_backbone(tmp_path / "other", seed=1)
    output = tmp_path / "new" / "folder"
    evaluated("--data", heldout, "--model", tiny_bert, "--baseline", other, "--output_dir", output)
    data = read_beir(heldout)
    found = results(output)
    assert (found["kind"], found["task"]) == ("embedder", "retrieval")
    assert found["queries"] == found["documents"] == 12
    for name, folder in (("fine-tuned", tiny_bert), ("base", other)):
        run = retrieve(Embedder.from_pretrained(folder), data, 10)
        for metric, values in per_query(run, data.qrels).items():
            assert found["metrics"][metric][name] == pytest.approx(values.mean(), abs=1e-12)
    figures = found["metrics"]["ndcg@10"]
    assert figures["difference"] == pytest.approx(figures["fine-tuned"] - figures["base"])
    assert figures["low"] <= figures["difference"] <= figures["high"]
    assert figures["wins"] + figures["losses"] + figures["ties"] == 12
    tuned = retrieve(Embedder.from_pretrained(tiny_bert), data, 10)
    assert {q: list(d) for q, d in read_run(output / "run.trec").items()} == {
        q: list(d) for q, d in tuned.items()
    }
    assert f"{figures['fine-tuned']:.3f}" in capsys.readouterr().out
    assert f"{figures['fine-tuned']:.3f}" in (output / "report.html").read_text(encoding="utf-8")


def test_prompts_and_dimensions_of_the_flags(
    heldout: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    prompts = {"query": "the cat: ", "document": "文档："}
    flags = [f"--{side}_prompt={text}" for side, text in prompts.items()]
    flags += ["--truncate_dim", "7", "--output_dir", str(tmp_path)]
    evaluated("--data", heldout, "--model", tiny_bert, *flags)
    model = Embedder.from_pretrained(tiny_bert, prompts=prompts, truncate_dim=7)
    run = retrieve(model, read_beir(heldout), 10)
    found = read_run(tmp_path / "run.trec")
    for query, documents in run.items():
        assert found[query] == pytest.approx(documents, abs=1e-5)


@pytest.mark.parametrize("first_stage", ["bm25", "embedder"])
def test_a_reranker_orders_what_a_first_stage_finds(
    first_stage: str,
    heldout: Path,
    tiny_bert: Path,
    tiny_classifier: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = tiny_bert if first_stage == "embedder" else "bm25"
    flags = ["--data", heldout, "--model", tiny_classifier, "--top_k", "5", "--max_queries", "6"]
    flags += ["--metrics", *DEFAULT_METRICS, "recall@7"]
    evaluated(*flags, "--first_stage", first, "--output_dir", tmp_path)
    assert "recall@7 count all others as not found" in caplog.text
    data = read_beir(heldout).sample(6)
    run = read_run(tmp_path / "run.trec")
    reranker = Reranker.from_pretrained(tiny_classifier)
    for query, ranking in run.items():
        best = list(ranking)[:5]
        pairs = [(data.queries[query], data.documents[document]) for document in best]
        scores = reranker.score(pairs, raw=True).tolist()
        assert scores == sorted(scores, reverse=True)
    found = results(tmp_path)
    assert found["settings"] == {"max_queries": 6, "top_k": 5}
    assert found["task"] == "reranking"
    assert found["first_stage"]["models"]["base"] == str(first)
    if first_stage == "embedder":
        ranked = retrieve(Embedder.from_pretrained(tiny_bert), data, 5)
        values = per_query(ranked, data.qrels)["ndcg@10"]
        assert found["first_stage"]["metrics"]["ndcg@10"]["base"] == pytest.approx(values.mean())


def test_a_reranker_orders_what_is_found_in_rows_without_negatives(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    """The figures are those of the same documents as a set."""
    folder = write_set(tmp_path / "set")
    data = read_beir(folder)
    rows = [
        {"query": text, "pos_doc": data.documents[next(iter(data.qrels[query]))]}
        for query, text in data.queries.items()
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    flags = ["--model", tiny_classifier, "--first_stage", tiny_bert, "--top_k", 5]
    for name, given in (("rows", file), ("beir", folder)):
        evaluated("--data", given, *flags, "--output_dir", tmp_path / name)
    found, expected = results(tmp_path / "rows"), results(tmp_path / "beir")
    for name, values in expected["metrics"].items():
        assert found["metrics"][name] == pytest.approx(values)
    assert found["first_stage"]["metrics"]["ndcg@10"]["fine-tuned"] < 1
    assert (found["split"], expected["split"]) == (None, "test")


def test_what_would_be_ignored_is_refused(
    heldout: Path,
    tiny_bert: Path,
    tiny_classifier: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    groups, scored = write_format("groups", tmp_path), write_format("scored", tmp_path)
    for model, data, flag, message in (
        (tiny_bert, heldout, "--show_queries=true", "show_queries: needs a --baseline, and data"),
        (tiny_classifier, groups, "--top_k=5", "top_k: the data say which documents are scored"),
        (tiny_classifier, scored, f"--first_stage={tiny_bert}", "first_stage: the data say which"),
        (tiny_bert, groups, "--top_k=5", "top_k: the model is an embedder"),
        (tiny_bert, groups, "--max_length=9", "max_length: is a reranker's, unlike query_max"),
        (tiny_classifier, groups, "--query_max_length=9", "query_max_length: is an embedder's"),
        (tiny_classifier, heldout, "--index=flat", "index: is an embedder's, and none is"),
        (tiny_bert, heldout, "--positive_threshold=0.9", "positive_threshold: is of rows in"),
        (tiny_bert, scored, "--metrics=recall@5", "metrics: are of rankings, and the data are"),
        (tmp_path, tmp_path, f"--output_dir={groups}", f"output_dir: {groups} is a file"),
    ):
        assert main(["--data", str(data), "--model", str(model), flag]) == 2
        assert message in capsys.readouterr().err


def test_a_home_folder_is_found(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_bert, tmp_path / "model")
    evaluated("--data", write_format("scored", tmp_path), "--model=~/model", "--max_queries", 1)
    assert results(tmp_path / "model")["pairs"] == 6


def test_groups_and_pairs_of_training_formats(
    tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    groups, scored = write_format("groups", tmp_path), write_format("scored", tmp_path)
    evaluated("--data", groups, "--model", tiny_classifier, "--output_dir", tmp_path / "groups")
    assert results(tmp_path / "groups")["task"] == "reranking"
    evaluated("--data", groups, "--model", tiny_bert, "--output_dir", tmp_path / "search")
    assert results(tmp_path / "search")["documents"] == sum(map(len, TOPICS.values()))
    evaluated("--data", scored, "--model", tiny_bert, "--output_dir", tmp_path / "pairs")
    rows = [json.loads(line) for line in scored.read_text(encoding="utf-8").splitlines()]
    embedder = Embedder.from_pretrained(tiny_bert)
    queries, documents = (embedder.encode([row[side] for row in rows]) for side in ("query", "doc"))
    cosines = (queries * documents).sum(dim=-1).numpy()
    expected = spearmanr(cosines, [row["rel"] for row in rows]).statistic
    assert results(tmp_path / "pairs")["metrics"]["spearman"]["fine-tuned"] == pytest.approx(
        expected, abs=1e-6
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A reranker's run with three checkpoints, and groups to judge it by."""
    folder = tmp_path_factory.mktemp("finished")
    texts = [text for topic, documents in TOPICS.items() for text in [topic, *documents]]
    model, file = save_classifier(folder / "model", texts), write_format("groups", folder)
    output = train(
        folder / "run",
        objective="listwise",
        model_name_or_path=model,
        train_file=file,
        eval_file=file,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        max_steps=6,
        learning_rate=0.03,
    )
    return output, file


@pytest.mark.parametrize("metric", ["loss", "mrr@10"])
def test_the_best_checkpoint_is_chosen_as_training_measured_it(
    metric: str, finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = finished
    evaluated("--checkpoints", run, "--data", file, "--select_best", "--metric", metric)
    logged = losses(run, f"eval_{metric}")
    assert len(set(logged)) > 1
    best = (min if metric == "loss" else max)(range(3), key=logged.__getitem__)
    chosen = json.loads((run / BEST_FILE).read_text(encoding="utf-8"))
    assert chosen["checkpoint"] == f"checkpoint-{2 * (best + 1)}"
    assert chosen["metric"] == metric
    # The final model is the last checkpoint, so it is not measured twice.
    assert list(chosen["all"]) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    assert np.allclose(list(chosen["all"].values()), logged, atol=1e-5)
    assert f"best: {run / chosen['checkpoint']} ({metric} " in capsys.readouterr().out


def test_the_loss_of_checkpoints_is_not_of_other_settings(
    finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoints", finished[0], "--data", finished[1], "--metric", "loss"]
    for flag in ("--max_queries=3", "--max_length=9", "--metrics=ndcg@5", "--tokens_per_batch=9"):
        assert main([str(word) for word in [*flags, flag]]) == 2
        assert (
            f"{flag[2:].partition('=')[0]}: the loss is of all rows, with the run's"
            in capsys.readouterr().err
        )


def test_one_checkpoint_is_compared_with_the_base_of_its_run(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    run, file = finished
    evaluated("--checkpoint_dir", run / "checkpoint-4", "--data", file, "--output_dir", tmp_path)
    found = results(tmp_path)
    assert found["models"]["base"].endswith("/model")
    assert found["metrics"]["mrr@10"]["fine-tuned"] == pytest.approx(losses(run, "eval_mrr@10")[1])


def test_labels_of_the_data_are_read_by_the_flags_for_the_loss_too(
    tiny_classifier: Path, tmp_path: Path
) -> None:
    file, graded = write_format("scored", tmp_path), tmp_path / "graded.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [row | {"rel": 4 * row["rel"]} for row in rows]
    graded.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = train(
        tmp_path / "run",
        objective="bce",
        model_name_or_path=tiny_classifier,
        train_file=graded,
        label_range=[0, 4],
        save_strategy="steps",
        save_steps=1,
        max_steps=1,
    )
    values = []
    for given in ([file], [graded, "--label_range", 0, 4]):
        evaluated("--checkpoints", run, "--select_best", "--metric", "loss", "--data", *given)
        values.append(json.loads((run / BEST_FILE).read_text(encoding="utf-8"))["value"])
    assert values[0] == pytest.approx(values[1])


def test_the_base_of_a_run_that_began_with_a_revision_is_not_guessed(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, file = finished
    recipe = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    checkpoint = shutil.copytree(run / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    (tmp_path / "run" / RUN_FILE).write_text(json.dumps(recipe | {"model_revision": "v1"}))
    assert main(["--checkpoint_dir", str(checkpoint), "--data", str(file)]) == 2
    assert "at v1; give its folder as baseline" in capsys.readouterr().err


def test_that_a_checkpoint_would_be_served_is_told(
    finished: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, file = finished
    (run / BEST_FILE).write_text('{"checkpoint": "checkpoint-2"}')
    for model, told in ((run, 1), (run / "checkpoint-2", 0)):
        caplog.clear()
        evaluated("--model", model, "--data", file, "--output_dir", tmp_path)
        assert (
            caplog.text.count("using its final model, although scripts/serve.py serves its") == told
        )
    (run / BEST_FILE).unlink()


def test_the_model_card_tells_what_was_measured(finished: tuple[Path, Path]) -> None:
    """Once, however often it was measured."""
    run, file = finished
    cards = []
    for _ in range(2):
        evaluated("--model", run, "--data", file)
        cards.append(ModelCard.load(run / "README.md"))
    assert "Settings:" not in cards[1].text
    value = results(run)["metrics"]["ndcg@10"]["fine-tuned"]
    (section,) = SECTION.findall(cards[1].text)
    assert f"{value:.3f}" in section
    assert len(cards[1].data.eval_results) == len(cards[0].data.eval_results) > 0
    evaluated("--model", run, "--data", file, "--max_queries", 3)
    card = ModelCard.load(run / "README.md")
    assert "Settings: `max_queries 3`." in card.text
    assert card.data.eval_results[0].metric_args == {"max_queries": 3}
    assert "max_<wbr>queries 3" in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "x"], "model: give one of --model, --checkpoint_dir, --checkpoints"),
        (
            ["--data", "x", "--model", "x", "--select_best"],
            "select_best: is for --checkpoints OUTPUT_DIR; leave it out",
        ),
        (
            ["--data", "x", "--model", "x", "--metrics", "ndgc@10"],
            "metrics: there is no metric 'ndgc@10'",
        ),
        (["--input", "x"], "input: unknown key; did you mean data?"),
        *(
            (["--data", "x", *flags], f"{name}: has no effect with --{given}; leave one out")
            for given, name, flags in (
                ("checkpoints", "baseline", ["--checkpoints", "r", "--baseline", "m"]),
                ("checkpoints", "output_dir", ["--checkpoints", "r", "--output_dir", "o"]),
                ("checkpoints", "store", ["--checkpoints", "r", "--store", "s"]),
                ("store", "baseline", ["--model", "m", "--store", "s", "--baseline", "b"]),
                ("store", "output_dir", ["--model", "m", "--store", "s", "--output_dir", "o"]),
                (
                    "store",
                    "document_max_length",
                    ["--model", "m", "--store", "s", "--document_max_length", "9"],
                ),
            )
        ),
    ],
)
def test_a_wrong_flag_is_named(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")


def test_models_of_different_kinds_are_not_compared(
    heldout: Path, tiny_bert: Path, tiny_classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(heldout), "--model", str(tiny_bert), "--baseline", str(tiny_classifier)]
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: baseline: ") and "is not of kind embedder" in error


def test_a_mistake_in_the_data_is_one_line_and_exit_code_2(tiny_bert: Path) -> None:
    done = Copy(["scripts/evaluate.py", "--data", "nowhere", "--model", tiny_bert])
    assert done.wait() == 2
    assert done.errors.startswith("error: nowhere")
    assert done.errors.count("\n") == 1


def test_ids_that_no_trec_file_holds_are_told_before_anything_is_encoded(
    heldout: Path, tiny_bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The report is written all the same, and no run of an earlier set is left beside it."""
    data, output = tmp_path / "set", tmp_path / "out"
    shutil.copytree(heldout, data)
    for name in ("corpus.jsonl", "qrels/test.tsv"):
        text = (data / name).read_text(encoding="utf-8")
        (data / name).write_text(re.sub(r"\bd(\d+)\b", r"d \1", text), encoding="utf-8")
    flags = ["--data", data, "--output_dir", output, "--model"]
    assert main([str(flag) for flag in [*flags, tmp_path / "no model"]]) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Embedder, "encode", None)
        with pytest.raises(TypeError):
            main([str(flag) for flag in [*flags, tiny_bert]])
    assert "run.trec will not be written: 12 ids have a space in them" in caplog.text
    output.mkdir(exist_ok=True)
    (output / "run.trec").write_text("of another set")
    evaluated(*flags, tiny_bert)
    evaluated("--data", heldout, "--output_dir", tmp_path / "plain", "--model", tiny_bert)
    assert results(output)["metrics"] == results(tmp_path / "plain")["metrics"]
    assert (output / "report.html").is_file() and not (output / "run.trec").exists()
    assert (tmp_path / "plain" / "run.trec").is_file()


def test_a_metric_without_a_value_ends_nothing(
    tiny_classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ones.jsonl"
    rows = [{"query": f"q {n}", "doc": "a cat", "label": 1} for n in range(4)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    flags = ["--data", file, "--model", tiny_classifier, "--output_dir", tmp_path / "out"]
    evaluated(*flags, "--baseline", tiny_classifier)
    out = capsys.readouterr().out
    assert "undefined: auc, average_precision, accuracy (all 4 judgements are 1)" in out
    found = results(tmp_path / "out")["metrics"]["auc"]
    assert (found["base"], found["fine-tuned"]) == (None, None)
    assert "undefined" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
