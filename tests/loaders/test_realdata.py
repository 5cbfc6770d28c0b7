"""Public files as their authors wrote them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from loaders import ReadOptions, Shape, load_rows

pytestmark = pytest.mark.realdata

BINARY, GRADED = ReadOptions(), ReadOptions(relevance_from_scores=True)
FILES = [
    # file, options, scored pairs, positive pairs, groups, graded
    ("flagembedding/classic_toy_finetune_data.jsonl", BINARY, 80, 10, 10, False),
    (
        "flagembedding/embedder_classification-no_in_batch_neg_Banking77Classification.jsonl",
        BINARY,
        310,
        10,
        10,
        False,
    ),
    ("flagembedding/embedder_retrieval_msmarco.jsonl", BINARY, 260, 10, 10, False),
    ("flagembedding/embedder_retrieval_nli.jsonl", BINARY, 20, 10, 10, False),
    ("flagembedding/embedder_sts_sts.jsonl", BINARY, 290, 10, 10, False),
    ("flagembedding/reranker_normal_examples.jsonl", BINARY, 260, 10, 10, False),
    ("flagembedding/reranker_prompt_based_examples.jsonl", BINARY, 260, 10, 10, False),
    ("t2ranking_100/t2rank_100.jsonl", BINARY, 2005, 505, 100, False),
    ("t2ranking_100/t2rank_100.small.jsonl", BINARY, 226, 61, 11, False),
    ("t2ranking_100/t2rank_100.distill.jsonl", BINARY, 2005, 522, 100, True),
    ("t2ranking_100/t2rank_100.distill.standard.jsonl", GRADED, 2005, 522, 100, True),
    ("t2ranking_100/t2rank_100_distill_standard.jsonl", GRADED, 2005, 522, 100, True),
    ("t2ranking_100/lmsft.jsonl", GRADED, 4, 2, 2, True),
    ("mldr_sample/mldr_en_dev_row0.jsonl", BINARY, 8, 1, 1, False),
    ("stsb/stsb-en-dev.csv", ReadOptions(label_range=(0, 5)), 1500, 757, 1474, True),
    ("stsb/stsb-zh-train.csv", ReadOptions(label_range=(0, 5)), 5749, 3422, 5382, True),
]


@pytest.mark.parametrize(("name", "options", "scored", "positive", "groups", "graded"), FILES)
def test_every_file_in_every_shape(
    realdata: Callable[[str], Path],
    name: str,
    options: ReadOptions,
    scored: int,
    positive: int,
    groups: int,
    graded: bool,
) -> None:
    file = str(realdata(name))
    counts: dict[Shape, int] = {
        "scored_pair": scored,
        "positive_pair": positive,
        "candidate_group": groups,
    }
    for shape, count in counts.items():
        rows = load_rows(file, shape, options)
        assert len(rows) == count
        assert rows[count - 1]["query"]
    assert load_rows(file, "candidate_group", options)[0]["graded"] == graded


def test_the_three_distillation_files_say_the_same(realdata: Callable[[str], Path]) -> None:
    rows = [
        load_rows(str(realdata(f"t2ranking_100/t2rank_100{name}")), "scored_pair", GRADED)
        for name in (".distill.jsonl", ".distill.standard.jsonl", "_distill_standard.jsonl")
    ]
    judged = [sorted((row["query"], row["doc"], row["rel"]) for row in each) for each in rows]
    assert judged[0] == judged[1] == judged[2]


def test_all_flagembedding_files_at_once(realdata: Callable[[str], Path]) -> None:
    rows = load_rows(str(realdata("flagembedding")), "candidate_group", ReadOptions())
    assert len(rows) == 70


def test_a_corpus_is_no_training_file(realdata: Callable[[str], Path]) -> None:
    file = str(realdata("mldr_sample/mldr_en_corpus_row0.jsonl"))
    with pytest.raises(ValueError, match='missing field "query"'):
        load_rows(file, "candidate_group", ReadOptions())
