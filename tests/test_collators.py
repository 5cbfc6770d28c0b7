"""Collators against exact tensors, and what is drawn for a row against what it may depend on."""

import pickle
from typing import Any

import pytest
import torch
from transformers import BertTokenizer

from collators import ContrastiveCollator, GroupCollator, PairCollator, ScoredPairCollator
from collators.sampling import draw_group

CAT, DOG, RAIN = "a cat sat", "the dog slept", "今天天气很好"


def ids(tokenizer: BertTokenizer, *texts: str) -> list[int]:
    return list(tokenizer(*texts)["input_ids"])


def scored(query: str, doc: str, rel: float, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"query": query, "doc": doc, "rel": rel, "weight": weight, "prompt": None, **more}


def positive(query: str, pos_doc: str, row: int = 0, **more: Any) -> dict[str, Any]:
    given = {"query": query, "pos_doc": pos_doc, "negatives": [], "other_positives": []}
    return {**given, "prompt": None, "row": row, "epoch": 0, **more}


def group(query: str, pos: list[str], neg: list[str], **more: Any) -> dict[str, Any]:
    given = {"query": query, "pos": pos, "neg": neg, "pos_scores": None, "neg_scores": None}
    return {**given, "prompt": None, "row": 0, "epoch": 0, **more}


def test_scored_pairs_encode_a_repeated_text_once(tiny_tokenizer: BertTokenizer) -> None:
    collate = ScoredPairCollator(tiny_tokenizer, query_max_length=16, document_max_length=16)
    batch = collate([scored(CAT, DOG, 1.0, 2.0), scored(CAT, RAIN, 0.25), scored(RAIN, CAT, 0.0)])
    assert batch["relevances"].tolist() == [1.0, 0.25, 0.0]
    assert batch["weights"].tolist() == [2.0, 1.0, 1.0]
    assert batch["queries"].tolist() == [0, 0, 1]
    assert batch["documents"].tolist() == [2, 1, 0]
    rows, mask = batch["texts"]["input_ids"], batch["texts"]["attention_mask"]
    assert len(rows) == 3
    for row, text in enumerate([CAT, RAIN, DOG]):
        assert rows[row][mask[row].bool()].tolist() == ids(tiny_tokenizer, text)
    assert rows.shape[1] == max(len(ids(tiny_tokenizer, text)) for text in (CAT, RAIN, DOG))


def test_prompts_and_lengths_of_each_side(tiny_tokenizer: BertTokenizer) -> None:
    collate = ScoredPairCollator(
        tiny_tokenizer,
        query_max_length=4,
        document_max_length=6,
        query_prompt="the ",
        document_prompt="on ",
    )
    batch = collate([scored(CAT, CAT, 1.0), scored(CAT, CAT, 1.0, prompt="dog ")])
    rows = batch["texts"]["input_ids"]
    word = dict(zip(CAT.split(), ids(tiny_tokenizer, CAT)[1:-1], strict=True))
    cls, sep = tiny_tokenizer.cls_token_id, tiny_tokenizer.sep_token_id
    the, dog, on = ids(tiny_tokenizer, "the dog on")[1:-1]
    pad = [tiny_tokenizer.pad_token_id] * 2
    assert rows[batch["queries"][0]].tolist() == [cls, the, word["a"], sep, *pad]
    assert rows[batch["queries"][1]].tolist() == [cls, dog, word["a"], sep, *pad]
    sentence = [cls, on, word["a"], word["cat"], word["sat"], sep]
    assert rows[batch["documents"][0]].tolist() == sentence
    assert batch["documents"].tolist()[0] == batch["documents"].tolist()[1]
    cut = collate.count_cut([scored(CAT, CAT, 1.0)])
    assert cut == {"query_max_length": (1, 1), "document_max_length": (0, 1)}


def test_the_same_text_with_two_limits_is_two_texts(tiny_tokenizer: BertTokenizer) -> None:
    collate = ScoredPairCollator(tiny_tokenizer, query_max_length=4, document_max_length=8)
    batch = collate([scored(CAT, CAT, 1.0)])
    assert batch["texts"]["attention_mask"].sum(dim=1).tolist() == [4, 5]


def test_contrastive_positives_and_hard_negatives(tiny_tokenizer: BertTokenizer) -> None:
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16, train_group_size=2)
    batch = collate([positive(CAT, DOG, 0, negatives=[RAIN]), positive(RAIN, CAT, 1)])
    texts = [
        row[mask.bool()].tolist()
        for row, mask in zip(
            batch["texts"]["input_ids"], batch["texts"]["attention_mask"], strict=True
        )
    ]
    documents = [texts[row] for row in batch["documents"].tolist()]
    assert documents == [ids(tiny_tokenizer, text) for text in (DOG, CAT, RAIN)]
    queries = [texts[row] for row in batch["queries"].tolist()]
    assert queries == [ids(tiny_tokenizer, CAT), ids(tiny_tokenizer, RAIN)]
    assert batch["positives"].tolist() == [0, 1]
    assert batch["excluded"].tolist() == [[False] * 3] * 2
    assert len(texts) == 3  # CAT and RAIN are a query and a document each


def test_a_repeated_document_stands_in_the_batch_once(tiny_tokenizer: BertTokenizer) -> None:
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16)
    batch = collate([positive(CAT, DOG, 0), positive(RAIN, DOG, 1, negatives=[DOG])])
    assert batch["positives"].tolist() == [0, 0]
    assert batch["excluded"].tolist() == [[False], [False]]


def test_other_positives_of_a_query_are_no_negatives(tiny_tokenizer: BertTokenizer) -> None:
    collate = ContrastiveCollator(tiny_tokenizer, 16, 16)
    rows = [
        positive(CAT, DOG, 0),
        positive(CAT, RAIN, 1),  # same query, another document
        positive(RAIN, "on the mat", 2, other_positives=[DOG, "not in the batch"]),
    ]
    batch = collate(rows)
    assert batch["positives"].tolist() == [0, 1, 2]
    assert batch["excluded"].tolist() == [
        [False, True, False],
        [True, False, False],
        [True, False, False],
    ]


def test_pairs_are_joined_by_the_tokenizer(tiny_tokenizer: BertTokenizer) -> None:
    collate = PairCollator(tiny_tokenizer, max_length=32)
    batch = collate([scored(CAT, DOG, 1.0, 2.0), scored(CAT, RAIN, 0.5)])
    assert batch["relevances"].tolist() == [1.0, 0.5]
    assert batch["weights"].tolist() == [2.0, 1.0]
    rows, mask = batch["texts"]["input_ids"], batch["texts"]["attention_mask"].bool()
    assert rows[0][mask[0]].tolist() == ids(tiny_tokenizer, CAT, DOG)
    assert rows[1][mask[1]].tolist() == ids(tiny_tokenizer, CAT, RAIN)
    kinds = batch["texts"]["token_type_ids"][0][mask[0]].tolist()
    assert kinds == [0] * (len(ids(tiny_tokenizer, CAT))) + [1] * 4


def test_the_document_is_cut_before_the_query(tiny_tokenizer: BertTokenizer) -> None:
    collate = PairCollator(tiny_tokenizer, max_length=10)
    batch = collate([scored(CAT, " ".join([DOG] * 9), 1.0)])
    row = batch["texts"]["input_ids"][0].tolist()
    assert row[:5] == ids(tiny_tokenizer, CAT)
    assert len(row) == 10
    assert collate.count_cut([scored(CAT, " ".join([DOG] * 9), 1.0)]) == {"max_length": (1, 1)}


def test_groups_are_padded_to_the_largest(tiny_tokenizer: BertTokenizer) -> None:
    collate = GroupCollator(tiny_tokenizer, max_length=32, train_group_size=3)
    batch = collate([group(CAT, [DOG], [RAIN, "on the mat"]), group(RAIN, [CAT], [DOG], row=1)])
    assert batch["relevances"].tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    assert batch["mask"].tolist() == [[True, True, True], [True, True, False]]
    assert len(batch["texts"]["input_ids"]) == 5
    first = batch["texts"]["input_ids"][0][batch["texts"]["attention_mask"][0].bool()]
    assert first.tolist() == ids(tiny_tokenizer, CAT, DOG)


# What is drawn

MANY = [f"negative {number}" for number in range(20)]


def test_a_draw_depends_on_seed_epoch_and_row_alone() -> None:
    row = group(CAT, ["p0", "p1", "p2"], MANY)
    first = draw_group(row, 8, seed=1)
    torch.rand(3)  # global generators take no part
    assert draw_group(dict(row), 8, seed=1) == first
    others = [
        draw_group({**row, "epoch": 1}, 8, seed=1),
        draw_group({**row, "row": 1}, 8, seed=1),
        draw_group(row, 8, seed=2),
    ]
    assert all(other != first for other in others)


def test_every_negative_and_every_positive_comes_up() -> None:
    row = group(CAT, ["p0", "p1", "p2"], MANY)
    seen = {
        text for epoch in range(40) for text, _ in draw_group({**row, "epoch": epoch}, 8, seed=0)
    }
    assert seen == {"p0", "p1", "p2", *MANY}


def test_a_binary_group_is_one_positive_and_negatives() -> None:
    drawn = draw_group(group(CAT, ["p0", "p1"], MANY), 8, seed=0)
    assert [relevance for _, relevance in drawn] == [1.0] + [0.0] * 7
    assert len({text for text, _ in drawn}) == 8


def test_a_small_group_is_taken_whole_and_nothing_repeats() -> None:
    drawn = draw_group(group(CAT, ["p0"], ["n0", "n1"]), 8, seed=0)
    assert drawn[0] == ("p0", 1.0)
    assert sorted(drawn[1:]) == [("n0", 0.0), ("n1", 0.0)]


def test_a_graded_group_takes_its_scores_and_any_candidate() -> None:
    row = group(CAT, ["p0", "p1"], ["n0"], pos_scores=[1.0, 0.75], neg_scores=[0.25], graded=True)
    drawn = draw_group(row, 8, seed=0)
    assert sorted(drawn) == [("n0", 0.25), ("p0", 1.0), ("p1", 0.75)]
    assert drawn[0][0] in {"p0", "p1"}


@pytest.mark.parametrize("kind", [ScoredPairCollator, ContrastiveCollator])
def test_collators_travel_to_dataloader_workers(
    kind: type[ScoredPairCollator | ContrastiveCollator], tiny_tokenizer: BertTokenizer
) -> None:
    collate = pickle.loads(pickle.dumps(kind(tiny_tokenizer, 8, 8)))
    assert collate.query_max_length == 8
