"""Tasks of MTEB: read as the package reads them, measured as it measures them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoders import Embedder
from evaluation import per_query, retrieve
from evaluation.data.mteb_task import read_mteb
from scripts import evaluate


@pytest.fixture(scope="module", autouse=True)
def _mteb() -> None:
    """Imported when these tests run: collecting all tests needs it not, and it takes seconds."""
    pytest.importorskip("mteb")


DOCUMENTS = {
    "d1": ("Paris", "the capital of France"),
    "q1": ("", "capital of France"),
    "文1": ("", "北京是中国的首都"),
    "d2": ("", "a cat sat on the mat"),
    "d3": ("", "the dog slept"),
}
QUERIES = {"q1": "capital of France", "问1": "中国的首都", "q3": "not judged"}
QRELS = [("q1", "d1", 1), ("问1", "文1", 2), ("问1", "d1", 0), ("q1", "d3", 1)]


def write_task(
    folder: Path, top_ranked: bool = False, instructions: bool = False, split: str = "test"
) -> str:
    """A data set as tasks have it on the Hub, in a local folder."""
    parts: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": d, "title": t, "text": x} for d, (t, x) in DOCUMENTS.items()],
        "queries": [{"_id": query, "text": text} for query, text in QUERIES.items()],
        "default": [{"query-id": q, "corpus-id": d, "score": r} for q, d, r in QRELS],
    }
    if top_ranked:
        ranked = {"q1": ["d2", "d1", "q1", "d3"], "问1": ["文1", "d2"]}
        parts["top_ranked"] = [{"query-id": q, "corpus-ids": own} for q, own in ranked.items()]
    if instructions:
        parts["instruction"] = [{"query-id": q, "instruction": f"for {q}"} for q in QUERIES]
    folder.mkdir()
    configs = []
    for name, rows in parts.items():
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        configs.append(
            f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {name}.jsonl\n"
        )
    text = "---\nconfigs:\n" + "".join(configs) + "---\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., Any]:
    """Return a task object over a local data set."""
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    def make(skip_same_id: bool = False, **changes: Any) -> Any:
        class Local(AbsTaskRetrieval):
            ignore_identical_ids = skip_same_id
            metadata = TaskMetadata(
                name="Local",
                description="A local task",
                dataset={"path": write_task(tmp_path / "task", **changes), "revision": "1"},
                type="Retrieval",
                category="t2t",
                modalities=["text"],
                eval_splits=[changes.get("split", "test")],
                eval_langs=["eng-Latn"],
                main_score="ndcg_at_10",
                reference=None,
                date=None,
                domains=None,
                task_subtypes=None,
                license=None,
                annotations_creators=None,
                dialect=None,
                sample_creation=None,
                bibtex_citation=None,
            )

        return Local()

    return make


def test_a_task_is_read(make_task: Callable[..., Any]) -> None:
    data = read_mteb(make_task())
    assert data.documents["d1"] == "Paris the capital of France"
    assert data.documents["文1"] == "北京是中国的首都"
    assert list(data.documents) == list(DOCUMENTS)
    assert data.queries == {"q1": QUERIES["q1"], "问1": QUERIES["问1"]}
    assert data.qrels == {"q1": {"d1": 1, "d3": 1}, "问1": {"文1": 2, "d1": 0}}
    assert (data.candidates, data.identical_documents) == (None, {})
    assert data.split == "test"


def test_candidates_and_instructions(make_task: Callable[..., Any]) -> None:
    data = read_mteb(make_task(top_ranked=True, instructions=True))
    assert data.candidates == {"q1": ["d2", "d1", "q1", "d3"], "问1": ["文1", "d2"]}
    assert data.queries == {"q1": "capital of France for q1", "问1": "中国的首都 for 问1"}


@pytest.mark.parametrize(
    "changes", [{}, {"skip_same_id": True}, {"instructions": True}, {"top_ranked": True}]
)
def test_the_figures_are_those_of_the_package(
    changes: dict[str, bool], make_task: Callable[..., Any], tiny_bert: Path, tmp_path: Path
) -> None:
    from mteb.models import SentenceTransformerEncoderWrapper

    embedder = Embedder.from_pretrained(tiny_bert)
    embedder.save_pretrained(tmp_path / "model")
    task = make_task(**changes)
    data = read_mteb(task)
    found = per_query(retrieve(embedder, data, 10), data.qrels, ["ndcg@3", "recall@3", "map@10"])
    model = SentenceTransformerEncoderWrapper(str(tmp_path / "model"), device="cpu")
    encode = {"batch_size": 4, "show_progress_bar": False}
    theirs = task.evaluate(model, encode_kwargs=encode)
    scores = theirs["default"]
    for name, values in found.items():
        base, k = name.split("@")
        assert values.mean() == pytest.approx(scores[f"{base}_at_{k}"], abs=1e-5), name


def test_one_subset_of_a_multilingual_task_is_chosen() -> None:
    with pytest.raises(
        ValueError, match=r"MIRACLRetrieval has several subsets; .* such as MIRACLR"
    ):
        read_mteb("MIRACLRetrieval", "dev")
    with pytest.raises(ValueError, match="No subsets were found for MIRACLRetrieval"):
        read_mteb("MIRACLRetrieval/xx", "dev")
    with pytest.raises(ValueError, match="MIRACLRetrieval cannot be loaded"):
        read_mteb("MIRACLRetrieval/zh", "dev")


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("SciFcat", "test", "Did you mean: 'SciFact'"),
        ("SciFact", "dev", "SciFact has no split 'dev'; it has test"),
        ("SciFact", "test", "SciFact cannot be loaded: Couldn't reach"),
        ("STS12", "test", "STS12 is a task of text and the type STS; only retrieval"),
        ("CUB200I2IRetrieval", "test", "is a task of image and the type"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, split: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read_mteb(name, split)
    assert message in str(error.value)


def test_conversations_are_refused(make_task: Callable[..., Any]) -> None:
    task = make_task()
    task.load_data()
    part = task.dataset["default"]["test"]
    part["queries"] = [{"id": "q1", "text": [{"role": "user", "content": "你好"}]}]
    with pytest.raises(ValueError, match=r"a text is expected, got .*你好"):
        read_mteb(task)


def test_a_suite_of_tasks(
    make_task: Callable[..., Any],
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The package's own task object; its only split is not "test"."""
    task = make_task(split="dev")
    monkeypatch.setattr("evaluation.data.mteb_task._find_task", lambda name: task)
    file, output = tmp_path / "suite.json", tmp_path / "all"
    file.write_text('["mteb:Local"]')
    flags = ["--suite", str(file), "--model", str(tiny_bert), "--output_dir", str(output)]
    assert evaluate.main(flags) == 0
    found = json.loads((output / "Local" / "evaluation.json").read_text(encoding="utf-8"))
    assert (found["documents"], found["queries"]) == (5, 2)
    assert found["split"] == "dev"
    with pytest.raises(ValueError, match="Local has no split 'test'; it has dev"):
        read_mteb(task, "test")
