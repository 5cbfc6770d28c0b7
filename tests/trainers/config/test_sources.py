"""Several sources: what of ``train_files`` is refused, which rows come, and in what order."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collators.mixture import MixtureRows, MixtureSampler, SourceCollator, SourceRows
from runs import write_format
from trainers import OBJECTIVES, Run, TandemArguments, build_run, parse_run
from trainers.config.assembly import read_train_rows
from trainers.run import COMPUTE_LOSS


def run_of(*files: Any, **more: Any) -> Run:
    values = {
        "objective": "contrastive",
        "model_name_or_path": "model",
        "output_dir": "run",
        "train_files": list(files),
    }
    return build_run(TandemArguments(**values | more))


def epoch(sampler: MixtureSampler, number: int) -> list[int]:
    sampler.epoch = number
    return list(sampler)


# Which rows, in what order


@given(
    sources=st.lists(st.tuples(st.integers(1, 9), st.floats(0.1, 3)), min_size=1, max_size=3),
    block=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_epochs_take_each_row_as_often_as_its_weight_says(
    sources: list[tuple[int, float]], block: int, seed: int
) -> None:
    sizes, weights = [size for size, _ in sources], [weight for _, weight in sources]
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    source_of = [at for at, size in enumerate(sizes) for _ in range(size)]
    sampler = MixtureSampler(sizes, weights, seed, block)
    seen: list[Counter[int]] = [Counter() for _ in sizes]
    for number in range(4):
        indices = epoch(sampler, number)
        assert len(indices) == len(sampler)
        taken: Counter[int] = Counter()
        for at in range(0, len(indices), block):
            rows = [divmod(index, sum(sizes)) for index in indices[at : at + block]]
            (source,) = {source_of[row] for _, row in rows}  # one source in each block
            taken[source] += len(rows)
            for turn, row in rows:
                assert turn == seen[source][row - starts[source]]  # how often it came before
                seen[source][row - starts[source]] += 1
        for source, size in enumerate(sizes):
            wanted = weights[source] * size
            assert abs(taken[source] - wanted) <= block / 2 or taken[source] == block
            counts = [seen[source][row] for row in range(size)]
            assert max(counts) - min(counts) <= 1  # none a second time before all once


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    one, other = (MixtureSampler([40, 25], [1.0, 0.5], seed, 5) for seed in (1, 2))
    again = MixtureSampler([40, 25], [1.0, 0.5], 1, 5)
    assert epoch(one, 3) == epoch(again, 3)  # whether or not epochs 0 to 2 were drawn
    assert epoch(one, 0) != epoch(other, 0)
    first, second = epoch(one, 0), epoch(one, 1)
    assert [at % 65 for at in first] != [at % 65 for at in second]
    turns = [[first[at] % 65 < 40 for at in range(0, 50, 5)] for first in (first, second)]
    assert turns[0] != turns[1] and sorted(turns[0]) == sorted(turns[1])


def test_rows_know_their_source_and_its_prompt() -> None:
    first: list[dict[str, Any]] = [{"query": f"a{at}", "prompt": None} for at in range(3)]
    second: list[dict[str, Any]] = [{"query": "b0", "prompt": None}]
    second.append({"query": "b1", "prompt": "own: "})
    sources = [SourceRows("a", first), SourceRows("b", second, query_prompt="查询：")]
    rows = MixtureRows(sources, one_source=True)
    assert len(rows) == 5 and rows.counts() == [3, 2]
    assert rows[2] == {"query": "a2", "prompt": None, "row": 2, "epoch": 0, "source": 0}
    assert rows[5 + 3] == {"query": "b0", "prompt": "查询：", "row": 0, "epoch": 1, "source": 1}
    assert rows[10 + 4] == {"query": "b1", "prompt": "own: ", "row": 1, "epoch": 2, "source": 1}
    assert second[0]["prompt"] is None
    # All rows of a step together, or row by row.
    assert rows.sampler(seed=0, rows_per_step=2).block == 2
    assert MixtureRows(sources, one_source=False).sampler(0, 2).block == 1


def test_batches_are_made_by_the_collator_of_their_source() -> None:
    collator = SourceCollator(
        [lambda rows: {"a": len(rows)}, lambda rows: {"b": 1}],
        evaluation=lambda rows: {"evaluation": len(rows)},
    )
    assert collator([{"source": 0}, {"source": 0}]) == {"a": 2, "source": 0}
    assert collator([{"source": 1}]) == {"b": 1, "source": 1}
    assert collator([{}, {}, {}]) == {"evaluation": 3, "source": 2}
    with pytest.raises(ValueError, match="too many values"):
        collator([{"source": 0}, {"source": 1}])


def test_bad_rows_are_written_by_source(tmp_path: Path) -> None:
    good = write_format("groups", tmp_path)
    bad = tmp_path / "坏.jsonl"
    bad.write_text('{"query": "cat"}\n{"query": "猫", "doc": "垫子", "rel": 1}\n', encoding="utf-8")
    entries = good, {"path": str(bad), "objective": "cosent"}
    run = run_of(*map(_text, entries), output_dir=str(tmp_path / "run"), on_bad_rows="skip")
    rows = read_train_rows(run)
    assert rows.counts() == [12, 1]
    assert {"pos_doc", *ADDED} < rows[0].keys()
    assert {"doc", "rel", *ADDED} < rows[12].keys()
    lines = (tmp_path / "run" / "rejected_rows_坏.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["line"] for line in lines] == [1]
    assert not (tmp_path / "run" / "rejected_rows_groups.jsonl").exists()


ADDED = ("row", "epoch", "source")


def _text(entry: Any) -> Any:
    return str(entry) if isinstance(entry, Path) else entry


# What a recipe says


def test_a_source_has_the_runs_settings_and_its_own() -> None:
    run = run_of(
        "data/nli 中文.jsonl",
        {"path": ["x.csv", "y.csv"], "name": "sts", "objective": "cosent", "label_range": [0, 5]},
        {"path": "org/retrieval:en@train", "weight": 2, "train_group_size": 4, "loss_args": {}},
        loss_args={"temperature": 0.02},
        train_group_size=3,
        query_prompt="query: ",
    )
    first, second, third = run.sources
    assert [first.name, second.name, third.name] == ["nli_中文", "sts", "retrieval_en_train"]
    assert [first.weight, second.weight, third.weight] == [1, 1, 2]
    assert [source.args.train_file for source in (first, second, third)] == [
        ["data/nli 中文.jsonl"],
        ["x.csv", "y.csv"],
        ["org/retrieval:en@train"],
    ]
    assert first.build_loss().temperature == 0.02
    assert second.build_loss().temperature == 0.05  # the run's is of another loss
    assert third.build_loss().temperature == 0.05
    assert [source.args.train_group_size for source in (first, second, third)] == [3, 3, 4]
    assert [source.args.label_range for source in (first, second)] == [None, [0, 5]]
    assert {source.args.query_prompt for source in (first, second, third)} == {"query: "}
    assert run.objective is OBJECTIVES["contrastive"] and run.args.train_file == []
    assert run.one_source_per_step
    mixed = run_of("a.jsonl", "b.jsonl", batches_from="all_sources")
    assert not mixed.one_source_per_step


def test_the_command_line_takes_paths_or_json() -> None:
    flags = ["--objective=contrastive", "--model_name_or_path=m", "--output_dir=o", "--train_files"]
    run = parse_run([*flags, "a.jsonl", "b/c.jsonl"])
    assert [source.name for source in run.sources] == ["a", "c"]
    run = parse_run([*flags, '[{"path": "甲.jsonl", "weight": 2}, "b.jsonl"]'])
    assert [source.weight for source in run.sources] == [2, 1]
    assert run.args.recipe["train_files"] == [{"path": "甲.jsonl", "weight": 2}, "b.jsonl"]
    with pytest.raises(ValueError, match=re.escape("--train_files: [{path: a}] is not JSON")):
        parse_run([*flags, "[{path: a}]"])


@pytest.mark.parametrize(
    ("files", "more", "expected"),
    [
        ([], {}, "train_files: is empty; give sources, or train_file"),
        (
            ["a"],
            {"train_file": "b"},
            "train_files: cannot be combined with train_file; give one of them",
        ),
        ([{"name": "a"}], {}, "train_files[0].path: is missing"),
        ([{"path": []}], {}, "train_files[0].path: is missing"),
        ([{"path": 1}], {}, "train_files[0].path: 1 is not a list or text"),
        (["a", {"path": "b", "wieght": 1}], {}, "train_files[1].wieght: unknown key; did you mean"),
        ([{"path": "b", "seed": 1}], {}, "train_files[0].seed: unknown key; a source has path, "),
        ([{"path": "b", "max_len": 9}], {}, "train_files[0].max_len: unknown key; a source has"),
        ([{"path": "b", "group_size": 9}], {}, "unknown key; did you mean train_group_size?"),
        ([{"path": "b", "weight": 0}], {}, "train_files[0].weight: must be above 0, got 0"),
        ([{"path": "b", "weight": "2"}], {}, 'train_files[0].weight: "2" is not a number'),
        (["x/a.csv", "y/a.csv"], {}, "train_files[1].name: 'a' is the name of train_files[0] too"),
        ([{"path": "a", "name": "a/b"}], {}, "train_files[0].name: 'a/b' may contain only letters"),
        (
            ["a", {"path": "b", "objective": "bce"}],
            {},
            "train_files[1].objective: bce trains the reranker, but the run's objective",
        ),
        (
            ["a", {"path": "b", "objective": "bse"}],
            {},
            "train_files[1].objective: 'bse' is",
        ),
        (
            [{"path": "b", "loss_args": {"temp": 1}}],
            {},
            "train_files[0].loss_args: temp: contrastive takes temperature, symmetric",
        ),
        (
            [{"path": "b", "objective": "distillation", "train_group_size": 1}],
            {},
            "train_files[0].train_group_size: must be at least 2 for objective distillation, got 1",
        ),
        ([{"path": "b", "label_range": [5, 0]}], {}, "train_files[0].label_range: must be [lowest"),
        (
            ["a", {"path": "b", "document_prompt": "d: "}],
            {"batches_from": "all_sources"},
            "train_files[1].document_prompt: cannot differ between sources whose rows share",
        ),
    ],
)
def test_sources_that_cannot_be(files: list[Any], more: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        run_of(*files, **more)
    assert "\n" not in str(error.value)


def test_batches_from_is_for_several_sources() -> None:
    with pytest.raises(ValueError, match="batches_from: is for train_files; leave it out"):
        run_of(train_files=None, train_file="a.jsonl", batches_from="all_sources")


def test_every_objective_can_be_that_of_a_source() -> None:
    for name, objective in OBJECTIVES.items():
        assert objective.trainer in COMPUTE_LOSS, name
